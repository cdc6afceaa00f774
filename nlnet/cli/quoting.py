"""Hydra's grammar for values: what it reads from a text, and the quotes that keep a text as it is.

Hydra reads `2024_01_02` as the number 20240102, `a,b` as two choices of a sweep and `all.csv#val`
not at all.
"""

import re
from types import UnionType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

FUNCTION = re.compile(r"(choice|range|glob|interval|sort|shuffle|tag|str|int|float|bool)\s*\(")
ESCAPE = re.compile(r"\\[\\()\[\]{}:=, \t]")  # the backslashes that Hydra removes
BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def exact(value: str, kinds: type | UnionType = str | int | float) -> str:
    """The value as it is if Hydra reads it as that text, else in Hydra's quotes.

    Values that the user has quoted or escaped, `${...}` and Hydra's functions stay as they are. So
    does a value that Hydra reads as one of `kinds` and that is converted back to the same text,
    such as the number 20.
    """
    read = _read(value)
    if read is not None and FUNCTION.match(value):
        return value
    if read is not None and not read.is_sweep_override():
        found = read.value()
        quoted = read.get_value_element_as_str().startswith(("'", '"'))
        escaped = isinstance(found, str) and ESCAPE.search(value)
        if quoted or escaped or (isinstance(found, kinds) and str(found) == value):
            return value
    return QuotedString(value, Quote.double).with_quotes()


def unquoted(value: str) -> str:
    """The text that Hydra reads from a value, without quotes and escapes.

    Values that Hydra does not read as one text, such as numbers, stay as they are.
    """
    read = _read(value)
    found = None if read is None or read.is_sweep_override() else read.value()
    return found if isinstance(found, str) else value


def split_choices(value: str) -> list[str]:
    """The parts between commas. Escaped commas and those in quotes or brackets do not count."""
    commas, depth, position = [-1], 0, 0
    while position < len(value):
        char = value[position]
        if char in "'\"" and not value[commas[-1] + 1 : position].strip():
            rest = re.compile(rf"(\\.|[^\\{char}])*{char}", re.DOTALL).match(value, position + 1)
            position = position if rest is None else rest.end() - 1
        depth += BRACKETS.get(char, 0)
        if char == "," and depth == 0:
            commas.append(position)
        position += 2 if char == "\\" else 1
    if depth != 0:  # a bracket without its partner is part of a name
        return [part.strip() for part in value.split(",")]
    if len(commas) == 1:
        return [value]
    ends = [*commas[1:], len(value)]
    return [value[start + 1 : end].strip() for start, end in zip(commas, ends, strict=True)]


def _read(value: str) -> Override | None:
    """What Hydra reads from a value; None for a value that its grammar refuses."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return None
