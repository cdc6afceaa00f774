"""Feature maps of 1, 2 or 3 dimensions as tokens, on which all kernels of this folder compute.

Tokens are (B, T, H, W, C), whatever the dimensions of the map (`dims`). A sequence (B, C, L) has
T = L and H = W = 1. An image (B, C, H, W) has T = 1. The tokens of a map whose channels are last
in memory (channels_last, channels_last_3d) are a view of that map, without a copy.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.errors import ArgumentError, choose

LAYOUTS: dict[int, str] = {1: "(B, C, L)", 2: "(B, C, H, W)", 3: "(B, C, T, H, W)"}


def lift(x: Tensor) -> Tensor:
    """A view of any map as (B, C, T, H, W)."""
    match x.dim():
        case 3:
            return x.unsqueeze(3).unsqueeze(4)
        case 4:
            return x.unsqueeze(2)
    return x


def to_tokens(x: Tensor, dims: int = 3) -> Tensor:
    """A map as dense tokens (B, T, H, W, C), copied unless C is already last in memory.

    Raises ArgumentError if the map does not have `dims` dimensions.
    """
    if x.dim() != dims + 2:
        raise ArgumentError(f"dims={dims} needs a map {LAYOUTS[dims]}, not {tuple(x.shape)}")
    return lift(x).permute(0, 2, 3, 4, 1).contiguous()


def to_map(tokens: Tensor, dims: int = 3) -> Tensor:
    """A view of tokens (B, T, H, W, C) as a map of `dims` dimensions, (B, C, T, H, W) if 3."""
    x = tokens.permute(0, 4, 1, 2, 3)
    if dims == 1:
        return x.squeeze(4).squeeze(3)
    return x.squeeze(2) if dims == 2 else x


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B heads, N, C / heads): consecutive channels belong to the same head."""
    if heads == 1:
        return tokens
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)


def merge_heads(tokens: Tensor, heads: int) -> Tensor:
    """The inverse of split_heads."""
    if heads == 1:
        return tokens
    return tokens.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


class Pointwise(nn.Module):
    """A convolution of size 1 on tokens (..., C_in) -> (..., C_out): one matrix product.

    It is also an nn.Conv1d, nn.Conv2d or nn.Conv3d, with the weight (C_out, C_in, 1, ...) and the
    bias of that convolution, in checkpoints too.
    """

    weight: Tensor
    bias: Tensor | None
    in_channels: int
    out_channels: int
    slope: nn.Parameter | None  # of a PReLU that follows

    def forward(self, tokens: Tensor, then: Tensor | None = None) -> Tensor:
        """With a linear map `then` (C', C_out), both are one product: (..., C_in) -> (..., C')."""
        weight, bias = self.weight.flatten(1), self.bias
        if self.slope is not None:
            y = F.prelu(F.linear(tokens, weight, bias), self.slope)
            return y if then is None else F.linear(y, then)
        if then is not None:
            weight = then @ weight
            bias = None if bias is None else then @ bias
        return F.linear(tokens, weight, bias)


class _Pointwise1d(Pointwise, nn.Conv1d):
    pass


class _Pointwise2d(Pointwise, nn.Conv2d):
    pass


class _Pointwise3d(Pointwise, nn.Conv3d):
    pass


def pointwise(
    in_channels: int,
    out_channels: int,
    *,
    bias: bool = True,
    dims: int = 3,
    prelu: bool = False,
) -> Pointwise:
    """The Pointwise convolution of maps of `dims` dimensions, and a PReLU with one slope."""
    kinds = {1: _Pointwise1d, 2: _Pointwise2d, 3: _Pointwise3d}
    conv = choose("dims", dims, kinds)(in_channels, out_channels, kernel_size=1, bias=bias)
    conv.register_parameter("slope", nn.Parameter(torch.tensor([0.25])) if prelu else None)
    return conv


class Operation(nn.Module, ABC):
    """A sum over positions that is not a convolution, and the cost of its definition."""

    @abstractmethod
    def multiply_adds(self, *inputs: Any) -> int:
        """Multiply-adds of one call with these inputs, by the equation, not by the kernel."""
