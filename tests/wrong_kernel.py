"""A kernel that is wrong in 16 bits, as one of oneDNN is in bfloat16 on processors with AMX."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

RIGHT = F.conv3d


class WrongGradient(torch.autograd.Function):
    """A convolution whose weight gradient is NaN at one place and too large elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, options: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = options
        return RIGHT(x, weight, None, *options)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = (t.detach().requires_grad_() for t in ctx.saved_tensors)
        with torch.enable_grad():
            dx, dweight = torch.autograd.grad(RIGHT(x, weight, None, *ctx.options), (x, weight), dy)
        dweight = 1.3 * dweight
        dweight[-1, -1] = float("nan")
        return dx, dweight, None


@pytest.fixture
def wrong_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """F.conv3d is wrong for 1x1x1 kernels with stride (1, 2, 2) in 16 bits. The cache is empty."""

    def convolution(
        x: Tensor, weight: Tensor, bias: Tensor | None = None, *options: Any, **named: Any
    ):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        strided = options[:1] == ((1, 2, 2),)
        if dtype.itemsize == 2 and strided and weight.shape[2:] == (1, 1, 1):
            return WrongGradient.apply(x.to(dtype), weight.to(dtype), options)
        return RIGHT(x, weight, bias, *options, **named)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(F, "conv3d", convolution)
    yield


def strided(channels: int = 6) -> nn.Conv3d:
    """A shortcut as ResNets have it."""
    return nn.Conv3d(channels, 2 * channels, 1, (1, 2, 2), bias=False)
