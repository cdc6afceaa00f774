"""Non-local blocks as furniture: put into a finished backbone, whose file does not know of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import nn

from nlnet.errors import UsageError


class Backbone(Protocol):
    """Stages by name, each a Sequential of block0, block1, ..., and their channels."""

    channels: dict[str, int]

    def get_submodule(self, target: str) -> nn.Module: ...

    def set_submodule(self, target: str, module: nn.Module) -> None: ...


def insert_non_local(
    backbone: Backbone,
    after: Mapping[str, Sequence[int]],
    make: Callable[[str, int], nn.Module],
) -> None:
    """Put `make(stage, channels)` behind block i of a stage, as nl{i}, for each i in after[stage].

    The names of what was there stay. Raises UsageError for a stage or block that is not there.
    """
    for stage_name, indices in after.items():
        if stage_name not in backbone.channels:
            known = ", ".join(backbone.channels)
            raise UsageError(f"model.non_local.{stage_name}: no such stage; choose from {known}")
        if len(set(indices)) != len(indices):
            raise UsageError(
                f"model.non_local.{stage_name}={list(indices)} names a block twice; one non-local "
                "block stands behind each"
            )
        stage = dict(backbone.get_submodule(stage_name).named_children())
        for i in indices:
            if f"block{i}" not in stage:
                last = sum(name.startswith("block") for name in stage) - 1
                raise UsageError(
                    f"model.non_local.{stage_name}={list(indices)}: {stage_name} has blocks 0 to "
                    f"{last}, not {i}"
                )
        named = nn.Sequential()
        for name, block in stage.items():
            named.add_module(name, block)
            if name.startswith("block") and int(name.removeprefix("block")) in indices:
                block = make(stage_name, backbone.channels[stage_name])
                named.add_module(name.replace("block", "nl"), block)
        backbone.set_submodule(stage_name, named)
