"""The parts of a code base that published networks, as nlnet knows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nlnet.config import ResNetConfig
from nlnet.weights.keymap import Format

Settings = Mapping[str, Any]  # a code base's own settings of a network, with its own names


@dataclass(frozen=True)
class Publisher:
    """Where a code base publishes its weights, and under which license."""

    root: str  # URL of a folder
    license: str
    paths: Mapping[str, str]  # our public name -> path below root
    aliases: Mapping[str, str] = field(default_factory=dict)  # former public name -> present one


@dataclass(frozen=True)
class CodeBase:
    """One code base: its key maps, its settings and its published weights."""

    formats: Mapping[str, Format]
    # Reads the sections of a settings file. Raises UserError for a setting that nlnet does not
    # have, and KeyError for a missing one.
    read_settings: Callable[[Settings], ResNetConfig]
    # Fields of ResNetConfig that the settings do not determine.
    undetermined: tuple[str, ...]
    publisher: Publisher
