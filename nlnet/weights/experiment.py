"""A code base's own settings of a network, converted to an experiment file."""

from dataclasses import asdict

import yaml

from nlnet.checks import one_of
from nlnet.config import ResNetConfig
from nlnet.errors import UserError
from nlnet.weights.code_base import Settings
from nlnet.weights.sources.all import CODE_BASES


def read_settings(code_base: str, facts: Settings) -> ResNetConfig:
    """Read the sections of a settings file.

    Args:
        code_base: a name in CODE_BASES
        facts: its sections, for instance MODEL and NONLOCAL of caffe2

    Raises:
        UserError: the code base is unknown, or a section or setting is missing or unsupported.
    """
    read = one_of("--from", code_base, CODE_BASES).read_settings
    try:
        return read(facts)
    except KeyError as error:
        raise UserError(f"settings of {code_base}: {error.args[0]} is missing") from error


def experiment_text(name: str, code_base: str, facts: Settings, source: str) -> str:
    """Return an experiment file with the keys that the settings determine.

    Args:
        name: the experiment's name
        code_base: a name in CODE_BASES
        facts: the sections of the settings file
        source: the settings file's name, for the head comment

    Raises:
        UserError: as `read_settings`.
    """
    model = asdict(read_settings(code_base, facts))
    for key in CODE_BASES[code_base].undetermined:
        del model[key]
    head = f"# @package _global_\n# The network of {source}, settings of {code_base}.\n"
    tree = {"name": name, "model": model}
    return head + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None)
