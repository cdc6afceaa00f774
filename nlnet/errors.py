"""The errors that a user can mend; tools print them as one line, without a stack trace."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Choice = TypeVar("Choice")


class UserError(Exception):
    """Something in the user's data, files or settings; the message names it and the remedy.

    A tool prints the message and exits with code 1.
    """


class UsageError(UserError):
    """A wrong word on the command line or in a config; a tool exits with code 2."""


def choose(key: str, name: Name, choices: Mapping[Name, Choice]) -> Choice:
    """Look up a choice by name; an unknown name raises a UsageError that lists the known ones."""
    if name not in choices:
        known = ", ".join(str(choice) for choice in choices)
        raise UsageError(f"{key}={name} is unknown; choose one of: {known}")
    return choices[name]
