"""Texts of older versions of the configuration, read as those of this version."""

from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from nlnet.config.model import ModelConfig, PytorchvideoConfig, ResNetConfig
from nlnet.config.optim import AdamWConfig, CosineConfig, SGDConfig, StepConfig
from nlnet.config.run import RunConfig
from nlnet.errors import UserError

KINDS: dict[str, tuple[type, ...]] = {  # key of RunConfig -> the types that it can have
    "model": (ResNetConfig, PytorchvideoConfig),
    "optim": (SGDConfig, AdamWConfig),
    "schedule": (StepConfig, CosineConfig),
}
RENAMED = {("inflation", "centre"): "center"}  # (key, word of older versions) -> word


def read_run_tree(text: str, source: str) -> dict[str, Any]:
    """The configuration in a run folder's config.yaml or in a checkpoint, as nested dicts.

    Keys that the text lacks, because they are newer, have their default values. Unknown keys and
    values of a wrong type are kept: the tree is for comparison. Raises UserError that names
    `source` if the text is no YAML mapping.
    """
    tree = migrated(text, source)
    defaults = OmegaConf.create(OmegaConf.to_container(schema_for(tree)))
    merged = OmegaConf.to_container(OmegaConf.merge(defaults, tree))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def migrated(text: str, source: str) -> DictConfig:
    """The tree of a YAML text with the keys and words of this version.

    Raises UserError that names `source` if the text is no YAML mapping.
    """
    try:
        tree = OmegaConf.create(text)
    except YAMLError as error:
        raise UserError(f"{source}: not a configuration (it is no YAML)") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{source}: not a configuration (it is a list)")
    for (key, old), new in RENAMED.items():
        if tree.get(key) == old:
            tree[key] = new
    # Older versions had one class with the keys of all networks; its key `network` was resnet or
    # a name of pytorchvideo.
    model = tree.get("model", {})
    network = model.get("network")
    if network == "resnet":
        del model["network"]
    elif network is not None:
        common = {field.name for field in fields(ModelConfig)}
        for key in {field.name for field in fields(ResNetConfig)} - common:
            model.pop(key, None)
    return tree


def schema_for(tree: DictConfig) -> DictConfig:
    """The schema of a run whose parts have the types that the tree's keys belong to."""
    schema = OmegaConf.structured(RunConfig)
    for key, kinds in KINDS.items():
        schema[key] = _kind_of(kinds, tree.get(key, {}))
    assert isinstance(schema, DictConfig)
    return schema


def _kind_of(kinds: tuple[type, ...], tree: DictConfig) -> Any:
    """The first kind that has all keys of the tree; the first of all if none has."""
    names = set(tree)
    fitting = [kind for kind in kinds if names <= {field.name for field in fields(kind)}]
    return OmegaConf.structured((fitting or list(kinds))[0])
