"""How many values batch norms in training mode normalize: one value has no variance."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.trainer.prepare import set_training_mode


@torch.no_grad()
def smallest_norm(
    build: Callable[[], nn.Module], clip_shape: tuple[int, int, int, int], freeze: Sequence[str]
) -> tuple[str, int]:
    """Return the batch norm with the fewest values per channel for one clip, and their number.

    Args:
        build: makes the network; nothing is computed
        clip_shape: (3, T, H, W)
        freeze: parts that stay in eval mode

    Returns:
        its name and T' H' W' of its input; ("", 2) for a network without a batch norm that trains
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _smallest(build(), torch.empty(1, *clip_shape), freeze)


def _smallest(model: nn.Module, clip: Tensor, freeze: Sequence[str]) -> tuple[str, int]:
    set_training_mode(model, model, freeze)
    trained = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training
    }
    model.eval()
    counts: dict[str, int] = {}

    def record(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts[name] = inputs[0][0, 0].numel()

    handles = [
        norm.register_forward_pre_hook(partial(record, name)) for name, norm in trained.items()
    ]
    try:
        model(clip)
    finally:
        for handle in handles:
            handle.remove()
    return min(counts.items(), key=lambda item: item[1], default=("", 2))
