"""The errors that a user can correct; tools print them as one line, without a stack trace."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Choice = TypeVar("Choice")


class UserError(Exception):
    """Something is wrong with the user's data, files or settings.

    The message says what is wrong, where, and what to do. A tool prints it and exits with code 1.
    """


class UsageError(UserError):
    """A word or number on the command line or in a config is wrong; a tool exits with code 2."""


class TransientError(UserError):
    """Something outside the run failed, such as another process; the same command may succeed."""


class ArgumentError(ValueError):
    """An argument of a function or module is wrong.

    The message begins with the argument's name, as `depth=51 is unknown`. A caller that read the
    argument from a config adds the section of the key: see `section` in nlnet/checks.py.
    """


def choose(argument: str, value: Name, choices: Mapping[Name, Choice]) -> Choice:
    """Look up an argument's value in `choices`.

    Raises ArgumentError that lists the known values if `value` is unknown.
    """
    if value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        raise ArgumentError(f"{argument}={value} is unknown; choose one of: {known}")
    return choices[value]
