"""The norms after a convolution. Maps are (B, C, T, H, W), for fixed norms of any dimensions."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm3d(nn.Module):
    """Batch norm with fixed statistics, weight and bias: an affine map per channel.

    It is for long clips in small batches. Its parameters and buffers have the names of
    `nn.BatchNorm3d`, so that either loads the checkpoints of the other. Source: the affine
    networks of Wang et al. 2018, section 4.1 ("BN is frozen").
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
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        return x * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)


class Affine3d(nn.Module):
    """y = x weight + bias per channel, fixed: a batch norm with its statistics folded in.

    The published networks for long clips have these parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        return x * self.weight.to(x.dtype).view(shape) + self.bias.to(x.dtype).view(shape)


class SyncBatchNorm3d(nn.BatchNorm3d):
    """Batch norm with the statistics of the batch over all ranks, on any device.

    Outputs and gradients equal those of `nn.BatchNorm3d` on the whole batch in one process, and
    the names are the same. With one rank, and in eval mode, it is `nn.BatchNorm3d`. The batches of
    the ranks may differ in size.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        assert self.momentum is not None
        with torch.no_grad():
            count, mean, var = moments = _global_moments(x)
            self.get_buffer("num_batches_tracked").add_(1)
            self.get_buffer("running_mean").lerp_(mean, self.momentum)
            self.get_buffer("running_var").lerp_(var * count / (count - 1), self.momentum)
        return _Normalize.apply(x, self.weight, self.bias, moments, self.eps)


Moments = tuple[Tensor, Tensor, Tensor]  # number of inputs (1,), mean (C,), biased variance (C,)


def _global_moments(x: Tensor) -> Moments:
    """The moments of each channel of (B, C, T, H, W) over all ranks."""
    variance, mean = torch.var_mean(x.float(), (0, 2, 3, 4), correction=0)
    mean, variance = mean.double(), variance.double()
    count = mean.new_full((1,), x.numel() // x.shape[1])
    sums = torch.cat([count, count * mean, count * (variance + mean.square())])
    dist.all_reduce(sums)
    count, totals = sums[:1], (sums[1:] / sums[0]).view(2, -1)
    variance = (totals[1] - totals[0].square()).clamp(min=0)
    return count.float(), totals[0].float(), variance.float()


class _Normalize(torch.autograd.Function):
    """y = (x - mean) (var + eps)^-0.5 weight + bias, with the moments of all ranks' inputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, moments: Moments, eps: float
    ) -> Tensor:
        count, mean, var = moments
        ctx.save_for_backward(x, weight, count, mean, (var + eps).rsqrt())
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, rstd = ctx.saved_tensors
        shape, grad = (1, -1, 1, 1, 1), grads[0].float()
        normal = (x.float() - mean.view(shape)) * rstd.view(shape)
        grad_weight = (grad * normal).sum((0, 2, 3, 4))
        grad_bias = grad.sum((0, 2, 3, 4))
        # A copy: the gradients of weight and bias are returned as those of this rank.
        means = torch.stack([grad_weight, grad_bias])
        dist.all_reduce(means)
        along, level = (means / count).view(2, *shape)
        grad_x = (weight * rstd).view(shape) * (grad - level - along * normal)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None


Norm = Callable[[int], nn.Module]

NORMS: dict[str, Norm] = {
    "batch": nn.BatchNorm3d,
    "sync": SyncBatchNorm3d,
    "frozen": FrozenBatchNorm3d,
    "affine": Affine3d,
}
