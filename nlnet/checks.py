"""Checks of the values of a configuration: the one file of checks for all builders.

Each check takes the full key, as the user writes it, and raises UsageError that begins with it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from nlnet.errors import ArgumentError, Choice, Name, UsageError, UserError, choose

Triple = tuple[int, int, int]


@contextmanager
def section(prefix: str) -> Iterator[None]:
    """Turn an ArgumentError into a UsageError about a key of the section `prefix`.

    `with section("model.non_local"):` makes `ratio=0 ...` to `model.non_local.ratio=0 ...`. An
    empty prefix adds nothing.
    """
    try:
        yield
    except ArgumentError as error:
        raise UsageError(f"{prefix}.{error}" if prefix else str(error)) from error


def one_of(key: str, value: Name, choices: Mapping[Name, Choice]) -> Choice:
    """Look up a value in `choices`; raises UsageError that lists the known values."""
    with section(""):
        return choose(key, value, choices)


def positive(key: str, value: float) -> None:
    """Raise UsageError unless a number is finite and above 0."""
    if not 0 < value < math.inf:
        raise UsageError(f"{key}={value} must be a number above 0")


def at_least(key: str, value: float, least: float) -> None:
    """Raise UsageError unless value >= least. Not a number (NaN) is refused, too."""
    if not value >= least:
        raise UsageError(f"{key}={value} must be {least} or more")


def below(key: str, value: float, limit: float) -> None:
    """Raise UsageError unless value < limit."""
    if not value < limit:
        raise UsageError(f"{key}={value} must be below {limit}")


def within(key: str, value: float, low: float, high: float) -> None:
    """Raise UsageError unless low <= value <= high."""
    if not low <= value <= high:
        raise UsageError(f"{key}={value} must be from {low} to {high}")


def odd(key: str, value: Sequence[int]) -> None:
    """Raise UsageError unless there are kernel sizes and all are odd.

    A convolution keeps the length of its input only if its kernel size is odd.
    """
    if not value or any(size < 1 or size % 2 == 0 for size in value):
        raise UsageError(f"{key}={list(value)} must be odd numbers, at least one")


def triple(key: str, value: Sequence[int], *, least: int = 1) -> Triple:
    """Three numbers (t, h, w), none below `least`; raises UsageError for anything else."""
    if len(value) != 3 or min(value) < least:
        raise UsageError(
            f"{key}={list(value)} must be three numbers, [t, h, w], none below {least}"
        )
    return value[0], value[1], value[2]


def require_libraries(extra: str, names: Sequence[str]) -> None:
    """Raise UserError if a library of an extra of pyproject.toml is not installed."""
    absent = [name for name in names if find_spec(name) is None]
    if absent:
        raise UserError(f"{', '.join(absent)}: not installed; run pip install 'nlnet[{extra}]'")
