"""Non-local blocks in a network of any code base, whose files do not know about them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from nlnet.errors import ArgumentError
from nlnet.model.non_local.build import build_from_options
from nlnet.model.non_local.stages import Place, insert_modules


def insert_non_local(
    model: nn.Module,
    after: Mapping[str, Sequence[int]],
    block: str | Callable[[str, int], nn.Module] = "non_local",
    *,
    channels: Mapping[str, int] | None = None,
    dims: int | None = None,
    share: bool = False,
    per_stage: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> list[str]:
    """Insert non-local blocks after residual blocks of a network, and return their dotted names.

    The block after residual block i of a stage is a child nl{i} of this stage: {"layer3": [1, 3]}
    adds the parameters `layer3.nl1.theta.weight`, ..., `layer3.nl3.theta.weight`, ... to the
    `state_dict`. All other names and values stay. The stage is the same object with more children,
    so `len(layer3)` and the positions of later children count them. `remove_non_local` restores
    the network. At the start every block is the identity, so that no output changes;
    global_context_mul halves its input instead.

    Args:
        model: a network with stages, each a Sequential of residual blocks
        after: dotted name of a stage -> indices (from 0) of the residual blocks that get a block
        block: a name in BLOCKS of nlnet/model/non_local/build.py, or a function of the stage's name
            and its number of channels that makes any module
        channels: stage -> number of channels; it is needed where the convolutions do not show it
        dims: 1 for maps (B, C, L), 2 for (B, C, H, W), 3 for (B, C, T, H, W); None finds it from
            the convolutions
        share: all blocks of a stage are one module, whose weights appear under each of the names
        per_stage: stage -> options for this stage, in place of the options for all stages
        options: keys of a block in `model.non_local`, for instance pairwise="dot_product",
            subsample="none" or group_frames=4; for a block by its name only

    Raises:
        ArgumentError: a stage, a residual block or an option is unknown, or channels or dims are
            not found. The network is then unchanged.
    """
    sizes = channels or {}
    options_of = per_stage or {}
    for argument, stages in (("channels", sizes), ("per_stage", options_of)):
        for stage in stages.keys() - after.keys():
            raise ArgumentError(f"{argument}={{{stage!r}: ...}}: {stage} gets no block")
    if not isinstance(block, str) and (options or per_stage):
        names = ", ".join([*options, *(["per_stage"] if per_stage else [])])
        raise ArgumentError(f"{names}: options need a block by its name; set them in the function")

    def make(place: Place) -> nn.Module:
        size = sizes[place.stage] if place.stage in sizes else place.channels()
        if not isinstance(block, str):
            return block(place.stage, size)
        chosen = {**options, **options_of.get(place.stage, {})}
        number = place.dims() if dims is None else dims
        return build_from_options(block, chosen, channels=size, dims=number)

    return insert_modules(model, after, make, share=share)
