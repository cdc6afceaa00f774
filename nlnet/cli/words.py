"""The words of a command line, prepared so that a run sees texts exactly as they were typed.

Hydra has its own grammar for values. This module puts the values of string keys in Hydra's
quotes where the grammar would refuse the text or read something else.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from hydra.conf import HydraConf

from nlnet.cli.choices import config_groups
from nlnet.cli.explain import misplaced_dashes
from nlnet.cli.keys import PATH_KEYS, Key, every_key, run_keys
from nlnet.cli.quoting import exact, split_choices, unquoted
from nlnet.errors import UsageError

WORD = re.compile(r"(?P<key>[^=]*)=(?P<value>.*)", re.DOTALL)
CHOICE = re.compile(r"choice\s*\((?P<choices>.*)\)", re.DOTALL)


def prepare_words(words: Sequence[str]) -> list[str]:
    """The words of a command line for Hydra, quoted where its grammar would change a text.

    Only values of string keys and choices of groups change. Values that the user has quoted,
    `${...}`, null for a key that allows it, and Hydra's functions stay as they are. In a sweep (-m,
    hydra.mode=MULTIRUN or +sweep=NAME) commas separate choices, and each choice is one text. A
    leading ~ of a path is the home folder.

    Raises UsageError for a word without a key, and for a key that is written as an option.
    """
    keys, groups, sweep = string_keys(), config_groups(), _is_sweep(words)
    return [_prepare(word, keys, groups, sweep) for word in words]


def string_keys() -> dict[str, Key]:
    """The keys whose value is a string: those of a run and those of Hydra itself."""
    keys = every_key() | {f"hydra.{name}": key for name, key in run_keys(HydraConf).items()}
    return {name: key for name, key in keys.items() if key.type is str}


def _is_sweep(words: Iterable[str]) -> bool:
    """Whether the command line starts a run for each choice."""
    return any(
        word in ("-m", "--multirun", "hydra.mode=MULTIRUN") or word.lstrip("+").startswith("sweep=")
        for word in words
    )


def _prepare(word: str, keys: Mapping[str, Key], groups: Sequence[str], sweep: bool) -> str:
    if word.startswith("--") and (message := misplaced_dashes(word)) is not None:
        raise UsageError(message)
    match = WORD.fullmatch(word)
    if match is None or word.startswith(("-", "~")):
        return word
    typed_key, value = match.groups()
    name = typed_key.lstrip("+")
    if not name:
        raise UsageError(f"{word}: there is no key before the =; write KEY=VALUE")
    if name in keys:
        text = _choices(name, keys[name], value) if sweep else _text(name, keys[name], value)
        return f"{typed_key}={text}"
    if name in groups and not re.search(r"[\[{,(]", value):  # else Hydra reads several choices
        return f"{typed_key}={exact(value, str)}"
    return word


def _choices(name: str, key: Key, value: str) -> str:
    """The value of a string key in a sweep: each of its choices as one text."""
    if name in PATH_KEYS and os.path.exists(os.path.expanduser(value)):
        return _text(name, key, value)  # a folder of a sweep has commas in its name
    choice = CHOICE.fullmatch(value.strip())
    parts = split_choices(value if choice is None else choice["choices"])
    texts = [_text(name, key, part) for part in parts]
    if choice is not None and not any(text.startswith(("'", '"')) for text in texts):
        return value
    return ",".join(texts)  # Hydra's choice() would drop the quotes


def _text(name: str, key: Key, value: str) -> str:
    """The value of a string key, written such that Hydra reads the typed text."""
    if key.optional and value.strip().lower() == "null":
        return value
    if name in PATH_KEYS:
        path = unquoted(value)
        if (expanded := os.path.expanduser(path)) != path:
            return exact(expanded)
    return exact(value)
