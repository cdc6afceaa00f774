"""Run folders: which configuration a folder belongs to, and how two configurations differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nlnet.config import ModelConfig, RunConfig, read_run_tree, run_text
from nlnet.errors import UserError

# Keys that say where and how fast a run is made, not what it computes.
FREE_KEYS = ("dist.", "data.num_workers", "data.root", "trainer.allocator", "trainer.fold_norms")
# Keys of a network that only training reads; norms answer alike, or are other weights.
TRAINING_KEYS = (
    "model.dropout",
    "model.norm",
    "model.zero_init_residual",
    "model.non_local.norm",
    "model.non_local.zero_init",
    "model.non_local.init",
)


def claim_folder(run: RunConfig, folder: Path) -> Path:
    """Take a run's folder, or find it taken by the same run; write its config.yaml.

    A folder without a log is free: nothing was begun in it. Returns the path of config.yaml.

    Raises UserError listing every difference if the folder belongs to another run.
    """
    path = folder / "config.yaml"
    if path.exists() and (folder / "log.txt").exists():
        found = flatten(read_run_tree(path.read_text(), str(path)))
        wanted = flatten(OmegaConf.to_container(OmegaConf.structured(run)))
        changes = differences(found, wanted, free=FREE_KEYS)
        if changes:
            raise UserError(
                f"{folder} holds a run with another configuration ({', '.join(changes)}); "
                "choose another folder with name=NAME, or remove this one"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(run_text(run))
    return path


def network_differences(config: str, model: ModelConfig) -> list[str]:
    """What makes a network answer otherwise than that of a run whose config.yaml is `config`.

    Of the keys of `model`, those that only training reads do not count, nor those of non-local
    blocks where there are none.
    """
    found = answering_keys(read_run_tree(config, "the file of weights"))
    wanted = answering_keys({"model": OmegaConf.to_container(OmegaConf.structured(model))})
    stages = [f"model.non_local.res{stage}" for stage in (2, 3, 4, 5)]
    has_blocks = any(keys[stage] for keys in (found, wanted) for stage in stages)
    return differences(found, wanted, free=() if has_blocks else ("model.non_local.",))


def answering_keys(run: Any) -> dict[str, Any]:
    """The keys of a run that its network's answers follow from."""
    return {
        key: value
        for key, value in flatten(run).items()
        if key.startswith("model.") and key not in TRAINING_KEYS
    }


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], free: tuple[str, ...] = ()
) -> list[str]:
    """`key old -> new` of every key whose values differ, but for those that begin as in `free`."""
    return [
        f"{key} {found.get(key)} -> {wanted.get(key)}"
        for key in sorted({**found, **wanted})
        if found.get(key) != wanted.get(key) and not key.startswith(free)
    ]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys."""
    if not isinstance(tree, Mapping):
        return {prefix[:-1]: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}."))
    return flat


def write_text(path: Path, text: str) -> None:
    """Write what a tool found out; raises UserError where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another") from error
