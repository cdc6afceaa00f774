"""Less memory in training, at the price of computing some maps twice."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nlnet.checks import one_of
from nlnet.model.classifier import VideoClassifier
from nlnet.model.resnet3d import STAGES, Bottleneck, ResNet3d


def save_memory(model: VideoClassifier, *, lean: bool, checkpoint_stages: Sequence[str]) -> None:
    """Prepare a network for training; its numbers and the names of its weights stay.

    A `lean` ResNet keeps one map per convolution (nlnet.model.speed.lean); of the stages that are
    named, res2 to res5, only the input of each block is kept. Raises UsageError for other names.
    """
    for module in model.modules():
        if isinstance(module, (Bottleneck, ResNet3d)):
            module.lean = lean
    known = {stage: stage for stage in STAGES}
    for name in checkpoint_stages:
        stage = model.backbone.get_submodule(one_of("trainer.checkpoint_stages", name, known))
        kept = CheckpointedStage()
        for child, block in stage.named_children():
            kept.add_module(child, block)
        model.backbone.set_submodule(name, kept)


class CheckpointedStage(nn.Sequential):
    """Blocks that are computed again in the backward pass, one at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        for block in self:
            x = checkpoint(block, x, use_reentrant=False, context_fn=partial(recomputation, block))
        return x


def recomputation(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a block's first and second computation: the second is no batch to count."""
    return nullcontext(), still_statistics(block)


@contextmanager
def still_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch, and leave their running statistics alone."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, norm.get_buffer("num_batches_tracked").clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").copy_(count)
