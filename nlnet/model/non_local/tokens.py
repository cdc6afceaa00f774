"""Feature maps as tokens: what every kernel of this folder computes on.

B clips, T x H x W positions, C channels. The tokens of a channels_last_3d map are that map itself,
seen as (B, T, H, W, C): no copy.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, T, H, W) as dense tokens (B, T, H, W, C); a copy only where C is not last."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def to_map(tokens: Tensor) -> Tensor:
    """Tokens (B, T, H, W, C) seen as a map (B, C, T, H, W)."""
    return tokens.permute(0, 4, 1, 2, 3)


def pointwise(conv: nn.Conv3d, tokens: Tensor) -> Tensor:
    """A 1x1x1 convolution on tokens (..., C_in) -> (..., C_out): one matrix product."""
    return F.linear(tokens, conv.weight.flatten(1), conv.bias)
