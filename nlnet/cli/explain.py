"""One line for an error of Hydra or OmegaConf: what is wrong, the nearest name, what to type."""

import re
import shlex
from collections.abc import Iterable

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import MarkedYAMLError

from nlnet.cli.choices import ADDED_GROUPS, choices, config_groups, group_word
from nlnet.cli.keys import PATH_KEYS, every_key, run_keys
from nlnet.cli.nearest import nearest
from nlnet.cli.quoting import unquoted
from nlnet.config import RunConfig

EVERY_KEY = "see --help, or --cfg job for every key"
LIKENESS = 0.8  # of the keys that are suggested for a misspelt one
CHOSEN_TWICE = (
    "{word} is chosen twice; give one choice, with + only for experiment, sweep and debug"
)
# What Hydra says first, and what is said instead; WORD is the override that Hydra names.
COMPOSITION = {
    r"Ambiguous value for argument '(?P<word>.*)'$": (
        "{word} has several values; add -m to start a run for each, or write [a,b] for a list"
    ),
    r"Sweep parameters '(?P<word>.*)' requires --multirun$": (
        "{word} has several values; add -m to start a run for each"
    ),
    r"Could not append to config\. An item is already at '(?P<word>.*)'\.$": (
        "{word} is a key of a run already; write {word}=VALUE without +"
    ),
    r"(?P<word>\S*) appears more than once in the final defaults list$": CHOSEN_TWICE,
    r"Multiple values for (?P<word>[^.]*)\.": CHOSEN_TWICE,
    r"Could not delete (from config\. )?'(?P<word>.*)'": (
        "~{word}: a run has no such key, or a key that cannot be removed; write KEY=null"
    ),
}


def explain(error: Exception) -> str:
    """One line for an error of Hydra, OmegaConf or YAML."""
    text = str(error)
    if isinstance(error, MarkedYAMLError):
        return " ".join(f"a config file is not YAML: {text}".split())
    if isinstance(error, MissingMandatoryValue):
        key = str(error.full_key)
        return f"{key} is not set; give {key}={'PATH' if key in PATH_KEYS else 'VALUE'}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return _file(text) + _missing_file(error.missing_cfg_file, error.options or ())
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        value = re.search(r"^To append to your config use \+[^=]*=(.*)$", text, re.MULTILINE)
        key, owner = str(cause.full_key), cause.object_type
        root = owner if isinstance(owner, type) and issubclass(owner, RunConfig) else RunConfig
        return _file(text) + unknown_key(key, None if value is None else value[1], root, owner)
    if isinstance(cause, InterpolationResolutionError | GrammarParseError):
        reason = str(cause).splitlines()[0]
        return f"{_file(text)}a value with ${{...}} cannot be resolved: {reason}"
    if isinstance(cause, OmegaConfBaseException):
        return _file(text) + _wrong_value(text, cause)
    return _composition(text or type(error).__name__)


def unknown_key(
    key: str, value: str | None = None, root: type = RunConfig, owner: type | None = None
) -> str:
    """The line for a key that a run does not have.

    Args:
        value: what was typed for it, which the remedy repeats; None in a file.
        root: the config class of the tool.
        owner: the config class that was asked for the key; another kind of it may have the key.
    """
    keys = run_keys(root)
    if key in keys and owner is not None:
        group, kind = key.split(".")[0], keys[key].owner
        return (
            f"{key} is a key of {kind.__name__}, but {group} is {owner.__name__} here; "
            f"choose another {group}, or leave {key} out"
        )
    near = nearest(key, {*keys, *config_groups()} - {key}, cutoff=LIKENESS)
    words = near if value is None else [_remedy(name, value) for name in near]
    advice = f"did you mean {_either(words)}?" if words else EVERY_KEY
    return f"{key} is not a key of a run; {advice}"


def misplaced_dashes(word: str) -> str | None:
    """The line for a key that is written as an option, such as --lr; None for other options."""
    name, _, value = word.removeprefix("--").partition("=")
    near = nearest(name, {*every_key(), *config_groups()}, cutoff=1.0)
    if not near:
        return None
    words = [_remedy(key, value or "VALUE") for key in near]
    return f"{word}: keys are written without dashes; did you mean {_either(words)}?"


def _missing_file(path: str, options: Iterable[str]) -> str:
    """The line for a config file that does not exist, such as experiment/mine.

    Args:
        options: the choices that Hydra knows, those of other config folders included.
    """
    group, _, choice = path.partition("/")
    if group not in config_groups():
        return f"there is no {path}; available: {', '.join(options)}"
    every = {name for name in options if not name.endswith("_schema")} | {*choices(group)}
    words = [group_word(group, name) for name in nearest(choice, every)]
    return (
        f"there is no {group} named {choice}; did you mean {_either(words)}? "
        f"--help lists all {len(every)}"
    )


def _unreadable(word: str) -> str:
    """The line for a word that Hydra's grammar refuses."""
    typed, equal, value = word.partition("=")
    name = typed.lstrip("+~")
    if not equal:
        return f"{word} is not of the form KEY=VALUE; {_completion(name)}"
    keys = every_key()
    if name not in {*keys, *config_groups()}:
        return unknown_key(name, value)
    if name in keys and keys[name].type is not str:
        return _wrong_type(word, name, "")
    quoted = shlex.quote(f'{typed}="{value}"')
    return f"{word}: Hydra cannot read the value; put it in quotes: {quoted}"


def _completion(name: str) -> str:
    """What a word without = may have been meant to be."""
    if name in config_groups():
        return f"write {group_word(name, 'CHOICE')}"
    if name in every_key():
        return f"write {name}=VALUE"
    words = [group_word(group, name) for group in config_groups() if name in choices(group)]
    return f"did you mean {_either(words)}?" if words else EVERY_KEY


def _wrong_value(text: str, cause: OmegaConfBaseException) -> str:
    """The line for a value of the wrong type."""
    if cause.full_key is None:  # the value of a ${...}
        return f"{str(cause).splitlines()[0]}; {EVERY_KEY}"
    word = re.match(r"Error merging override (.*)", text)
    subject = f"{cause.full_key}={cause.value}" if word is None else word[1]
    return _wrong_type(subject, re.sub(r"(\[\d+\])+$", "", str(cause.full_key)), str(cause))


def _wrong_type(word: str, name: str, reason: str) -> str:
    """The line for a word whose value has not the type of the key `name`."""
    key = every_key().get(name)
    if key is None:
        return f"{word}: {reason.splitlines()[0]}; {EVERY_KEY}"
    if key.is_config:
        return f"{word}: {name} holds keys of its own; write {name}.KEY=VALUE"
    return f"{word}: the value must be {key.wanted()}"


def _composition(text: str) -> str:
    """The line for choices that do not go together, and for other errors of Hydra."""
    lines = text.splitlines()
    missing = re.search(r"Could not override '([^']*)'", lines[0])
    if missing is not None:
        added = re.search(r"use \+[^=]*=(.*)$", lines[-1])
        return _file(text) + _missing_group(missing[1], None if added is None else added[1])
    for pattern, line in COMPOSITION.items():
        match = re.search(pattern, lines[0])
        if match is not None:
            return line.format(word=match["word"])
    return f"{lines[0]}; {EVERY_KEY}"


def _missing_group(group: str, choice: str | None) -> str:
    """The line for a choice of a group that is not among the defaults of a run."""
    if group not in ADDED_GROUPS:
        return unknown_key(group, choice)
    line = f"{group} has no default; write {_remedy(group, choice or 'CHOICE')} with a plus"
    if choice is None or "," in choice or choice in choices(group):
        return line
    words = [group_word(group, name) for name in nearest(choice, choices(group))]
    return f"{line} (nearest to {choice}: {', '.join(words)}; --help lists all)"


def _remedy(name: str, value: str) -> str:
    """A key or a group with a value, as it must be typed in a shell."""
    text = unquoted(value)
    word = group_word(name, text) if name in config_groups() else f"{name}={text}"
    return shlex.quote(word)


def _file(text: str) -> str:
    """Which config file an error is about; nothing for words of the command line."""
    match = re.match(r"In '([^']*/[^']*)': ", text)
    return "" if match is None or match[1].startswith("hydra/") else f"{match[1]}.yaml: "


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
