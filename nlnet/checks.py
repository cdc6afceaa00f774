"""What numbers of the configuration must be, told by their key."""

from collections.abc import Sequence

from nlnet.errors import UsageError

Triple = tuple[int, int, int]


def triple(key: str, value: Sequence[int], *, least: int = 1) -> Triple:
    """Three numbers (t, h, w), none below `least`; raises UsageError, naming the key."""
    if len(value) != 3 or min(value) < least:
        raise UsageError(
            f"model.{key}={list(value)} wants three numbers, [t, h, w], none below {least}"
        )
    return value[0], value[1], value[2]


def odd(key: str, value: Sequence[int]) -> None:
    """Raise UsageError unless there are kernel sizes and all are odd, so that lengths are kept."""
    if not value or any(size < 1 or size % 2 == 0 for size in value):
        raise UsageError(f"model.{key}={list(value)} wants odd numbers, one at least")


def positive(key: str, value: float) -> None:
    """Raise UsageError unless a number is above 0."""
    if value <= 0:
        raise UsageError(f"model.{key}={value} wants a number above 0")
