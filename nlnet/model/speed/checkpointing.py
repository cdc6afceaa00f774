"""Less memory in training, in exchange for computing some feature maps twice."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nlnet.errors import choose
from nlnet.model.classifier import VideoClassifier
from nlnet.model.resnet3d import STAGES
from nlnet.model.speed.lean import make_lean

Context = AbstractContextManager[None]


def save_memory(model: VideoClassifier, *, lean: bool, checkpoint_stages: Sequence[str]) -> None:
    """Replace modules by forms that need less memory in training; outputs and names are the same.

    Call it before the model is compiled or wrapped. With `lean`, a ResNet keeps one map per
    convolution (nlnet/model/speed/lean.py). `checkpoint_stages` names stages, res2 to res5, that
    keep only the inputs of their blocks. Raises ArgumentError for an unknown stage.
    """
    if lean:
        make_lean(model)
    known = {stage: stage for stage in STAGES}
    for name in checkpoint_stages:
        stage = model.backbone.get_submodule(choose("checkpoint_stages", name, known))
        model.backbone.set_submodule(name, CheckpointedStage(stage))


class CheckpointedStage(nn.Sequential):
    """A stage whose blocks are computed again in the backward pass, one at a time."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__(OrderedDict(stage.named_children()))
        self.training = stage.training

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        for block in self:
            x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))
        return x


def _contexts(block: nn.Module) -> tuple[Context, Context]:
    """Contexts of the first and the second computation: the second must not update statistics."""
    return nullcontext(), _fixed_statistics(block)


@contextmanager
def _fixed_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms normalize by the batch, and do not update their running statistics."""
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
