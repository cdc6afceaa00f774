"""Class names that a left-right flip makes wrong."""

import re
from collections.abc import Iterable

DIRECTIONS = frozenset(
    {"left", "right", "leftward", "rightward", "leftwards", "rightwards"}
    | {"clockwise", "counterclockwise", "anticlockwise"}
)
# Runs of letters; a capital letter starts a new word, so that SwipeLeft is two words.
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def directional_names(class_names: Iterable[str]) -> list[str]:
    """The class names that contain a word of left and right or of a sense of rotation."""
    return [
        name for name in class_names if DIRECTIONS & {word.lower() for word in WORD.findall(name)}
    ]
