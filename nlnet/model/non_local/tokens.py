"""Feature maps as tokens: what every kernel of this folder computes on.

B clips, T x H x W positions, C channels. The tokens of a channels_last_3d map are that map itself,
seen as (B, T, H, W, C): no copy.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, T, H, W) as dense tokens (B, T, H, W, C); a copy only where C is not last."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def to_map(tokens: Tensor) -> Tensor:
    """Tokens (B, T, H, W, C) seen as a map (B, C, T, H, W)."""
    return tokens.permute(0, 4, 1, 2, 3)


class Pointwise(nn.Conv3d):
    """A 1x1x1 convolution on tokens (..., C_in) -> (..., C_out): one matrix product.

    Weight (C_out, C_in, 1, 1, 1) and bias are those of the convolution, in checkpoints too.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, tokens: Tensor, behind: Tensor | None = None) -> Tensor:
        """With a linear map (C', C_out) `behind`: both in one product, (..., C')."""
        weight, bias = self.weight.flatten(1), self.bias
        if behind is not None:
            weight = behind @ weight
            bias = None if bias is None else behind @ bias
        return F.linear(tokens, weight, bias)


class Operation(nn.Module, ABC):
    """A sum over positions that is no convolution; it says what its definition costs."""

    @abstractmethod
    def multiply_adds(self, *inputs: Any) -> int:
        """Multiply-adds of one call on these inputs, as the equation stands."""
