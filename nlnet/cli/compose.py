"""Words of the command line -> a typed run, composed by Hydra."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING, DictConfig, OmegaConf

from nlnet.cli.choices import CONFIG_DIR, choices
from nlnet.cli.dotted_keys import flatten
from nlnet.cli.explain import unknown_key
from nlnet.cli.nearest import nearest
from nlnet.cli.sweep import ended_processes_reported, ending_with_sweep, name_by_swept
from nlnet.cli.words import prepare_words
from nlnet.config import RunConfig, parse_run, register_schemas
from nlnet.errors import UsageError, UserError

# What a tool does with the composed run and its output folder; returns a score, for sweeps.
Work = Callable[[Any, Path], Any]
# Finds the run that the words of the command line change; None is the default configuration.
Base = Callable[[list[str]], RunConfig | None]

VERSION_BASE = "1.3"
BASE_CONFIG = "from_checkpoint"  # the primary config that holds BASE_NODE
BASE_NODE = "checkpoint"


def compose_and_run(work: Work, config: str, words: list[str], base: Base | None) -> None:
    """Compose the words over `config` and call `work` with the run and its output folder.

    If `base` finds a run, the words change that run and not the default configuration.
    """
    register_schemas()
    words = prepare_words(words)
    run = None if base is None else base(words)
    if run is not None:
        if not Path(run.data.root).is_dir():  # the checkpoint's data are not on this machine
            run = replace(run, data=replace(run.data, root=MISSING))
        ConfigStore.instance().store(name=BASE_NODE, node=run)
        config, words = BASE_CONFIG, [appended(word) for word in words]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises errors to the caller
    sys.argv[1:] = sorted([*words, *name_by_swept(words)], key=_place)

    @wraps(work)
    def task(cfg: DictConfig) -> Any:
        with ending_with_sweep():
            return work(to_run(cfg), Path(HydraConfig.get().runtime.output_dir))

    decorate = hydra.main(
        config_path=str(CONFIG_DIR), config_name=config, version_base=VERSION_BASE
    )
    with ended_processes_reported():
        decorate(task)()


def compose_run(experiment: str, *words: str) -> RunConfig:
    """The configuration of an experiment, a name below configs/experiment, changed by words.

    A `data.root` that the experiment leaves open is the working folder. Raises UsageError for an
    unknown experiment.
    """
    names = choices("experiment")
    if experiment not in names:
        near = ", ".join(nearest(experiment, names))
        raise UsageError(f"experiment={experiment} is unknown; the nearest are {near}")
    register_schemas()
    outer = GlobalHydra.instance().hydra  # not None if the caller is a Hydra program of its own
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base=VERSION_BASE):
            cfg = hydra.compose("run", overrides=[f"+experiment={experiment}", *words])
    finally:
        GlobalHydra.instance().hydra = outer
    if OmegaConf.is_missing(cfg.data, "root"):
        cfg.data.root = "."
    return to_run(cfg)


def read_run(path: Path) -> RunConfig:
    """Read a config.yaml; raises UserError if it is not one."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_run(text, str(path))


def to_run(cfg: DictConfig) -> Any:
    """The composed configuration as its dataclasses: RunConfig or a subclass of it.

    Raises UsageError for a key that was added with + but that no class has, and for an empty name.
    """
    run = OmegaConf.to_object(cfg)
    assert isinstance(run, RunConfig)
    if not run.name:
        raise UsageError("name is empty; it names the output folder: give name=NAME")
    known = flatten(OmegaConf.to_container(OmegaConf.structured(run)))
    for key, value in flatten(OmegaConf.to_container(cfg)).items():
        if key not in known:
            raise UsageError(unknown_key(key, "null" if value is None else str(value), type(run)))
    return run


def _place(word: str) -> int:
    """The place of a word in the order for Hydra.

    A choice of +debug changes the experiment, wherever it was typed. Hydra rejects overrides
    after -m.
    """
    return 2 if word in ("-m", "--multirun") else int(word.startswith("+debug="))


def appended(word: str) -> str:
    """A choice of a group, `clip=32x2`, as one that is added after the run that it changes."""
    key, equals, _ = word.partition("=")
    return f"+{word}" if equals and (CONFIG_DIR / key).is_dir() else word


def typed_value(words: Sequence[str], key: str) -> str | None:
    """The text of the last `key=text` among prepared words; None if there is none."""
    values = [word for word in words if word.lstrip("+").startswith(f"{key}=")]
    if not values:
        return None
    found = OverridesParser.create().parse_override(values[-1])
    value = None if found.is_sweep_override() else found.value()
    return None if value is None else str(value)
