"""Feature maps as tokens, on which all kernels of this folder compute.

B clips, T x H x W positions, C channels. The tokens (B, T, H, W, C) of a channels_last_3d map are
a view of that map, without a copy.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, T, H, W) as dense tokens (B, T, H, W, C), copied unless C is already last."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def to_map(tokens: Tensor) -> Tensor:
    """A view of tokens (B, T, H, W, C) as a map (B, C, T, H, W)."""
    return tokens.permute(0, 4, 1, 2, 3)


class Pointwise(nn.Conv3d):
    """A 1x1x1 convolution on tokens (..., C_in) -> (..., C_out): one matrix product.

    Its weight (C_out, C_in, 1, 1, 1) and bias are those of nn.Conv3d, in checkpoints too.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, tokens: Tensor, then: Tensor | None = None) -> Tensor:
        """With a linear map `then` (C', C_out), both are one product: (..., C_in) -> (..., C')."""
        weight, bias = self.weight.flatten(1), self.bias
        if then is not None:
            weight = then @ weight
            bias = None if bias is None else then @ bias
        return F.linear(tokens, weight, bias)


class Operation(nn.Module, ABC):
    """A sum over positions that is not a convolution, and the cost of its definition."""

    @abstractmethod
    def multiply_adds(self, *inputs: Any) -> int:
        """Multiply-adds of one call with these inputs, by the equation, not by the kernel."""
