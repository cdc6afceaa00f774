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
    build: Callable[[], nn.Module],
    clip_shape: tuple[int, int, int, int],
    freeze: Sequence[str],
    ranks: int = 1,
    synchronized: type[nn.Module] = nn.SyncBatchNorm,
) -> tuple[str, int]:
    """Return the batch norm with the fewest values per channel, and their number.

    Each rank has one clip. A synchronized batch norm has the values of all ranks.

    Args:
        build: makes the network; nothing is computed
        clip_shape: (3, T, H, W)
        freeze: parts that stay in eval mode
        ranks: number of ranks
        synchronized: the class of synchronized batch norms

    Returns:
        its name and the number; ("", 2) for a network without a batch norm that trains
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build()
        counts = _counts(model, torch.empty(1, *clip_shape), freeze)
    for name in counts:
        if isinstance(model.get_submodule(name), synchronized):
            counts[name] *= ranks
    return min(counts.items(), key=lambda item: item[1], default=("", 2))


def _counts(model: nn.Module, clip: Tensor, freeze: Sequence[str]) -> dict[str, int]:
    """T' H' W' of the input of each batch norm that trains, by its name."""
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
    return counts
