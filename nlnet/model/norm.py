"""The norms behind a convolution, and the dict of their names."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class FrozenBatchNorm3d(nn.Module):
    """Batch norm as a fixed affine map per channel: what long clips at small batches train with.

    Its parameters and buffers bear the names of `nn.BatchNorm3d`, so the checkpoints of either fit
    the other, but nothing in it learns and no statistics move. Input and output (B, C, T, H, W).
    Source: the affine networks of Wang et al. 2018, section 4.1 ("BN is frozen").
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.running_mean: Tensor
        self.running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
        shift = self.bias - self.running_mean * scale
        shape = (1, -1, 1, 1, 1)
        return x * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)


class Affine3d(nn.Module):
    """y = x weight + bias per channel, fixed: a batch norm whose statistics are folded in.

    What the published long-clip networks hold; a norm of the same statistics gives the same
    answer. Input and output (B, C, T, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1, 1)
        return x * self.weight.to(x.dtype).view(shape) + self.bias.to(x.dtype).view(shape)


Norm = Callable[[int], nn.Module]

NORMS: dict[str, Norm] = {
    "batch": nn.BatchNorm3d,
    "sync": nn.SyncBatchNorm,  # statistics over all ranks; CUDA only
    "frozen": FrozenBatchNorm3d,
    "affine": Affine3d,
}
