"""Non-local blocks, inserted into a finished backbone, whose file does not know about them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import nn

from nlnet.errors import ArgumentError


class StagedBackbone(Protocol):
    """A backbone with named stages: each is a Sequential of block0, block1, ..."""

    channels: dict[str, int]  # stage -> number of channels

    def get_submodule(self, target: str) -> nn.Module: ...

    def set_submodule(self, target: str, module: nn.Module) -> None: ...


def insert_non_local(
    backbone: StagedBackbone,
    after: Mapping[str, Sequence[int]],
    make: Callable[[str, int], nn.Module],
) -> None:
    """Insert `make(stage, channels)` as nl{i} after block i, for each i in after[stage].

    The names of the other modules do not change. Raises ArgumentError for an unknown stage or
    block.
    """
    for stage_name, indices in after.items():
        if stage_name not in backbone.channels:
            known = ", ".join(backbone.channels)
            raise ArgumentError(
                f"{stage_name}={list(indices)}: there is no such stage; choose from {known}"
            )
        if len(set(indices)) != len(indices):
            raise ArgumentError(
                f"{stage_name}={list(indices)} names a block twice; at most one non-local block "
                "follows each"
            )
        stage = dict(backbone.get_submodule(stage_name).named_children())
        for i in indices:
            if f"block{i}" not in stage:
                last = sum(name.startswith("block") for name in stage) - 1
                raise ArgumentError(
                    f"{stage_name}={list(indices)}: {stage_name} has blocks 0 to {last}, not {i}"
                )
        named = nn.Sequential()
        for name, block in stage.items():
            named.add_module(name, block)
            if name.startswith("block") and int(name.removeprefix("block")) in indices:
                block = make(stage_name, backbone.channels[stage_name])
                named.add_module(name.replace("block", "nl"), block)
        backbone.set_submodule(stage_name, named)
