"""One context vector for all positions: the simplified non-local and the global context block.

Both sum x over the positions, with the weights of a softmax of one logit per position.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.errors import choose
from nlnet.model.non_local.axes import single_pass
from nlnet.model.non_local.kernels.context import unary_context
from nlnet.model.non_local.layers import initialize, inner_channels
from nlnet.model.non_local.tokens import Operation, pointwise, to_map, to_tokens


class _Context(Operation):
    """sum_j softmax_j(m_j) x_j: logits (B, N, 1), tokens (B, N, C) -> (B, 1, C)."""

    def forward(self, mask: Tensor, tokens: Tensor) -> Tensor:
        return unary_context(mask.squeeze(2), tokens)

    def multiply_adds(self, mask: Tensor, tokens: Tensor) -> int:
        return tokens.numel()


class SimplifiedNonLocalBlock(nn.Module):
    """z_i = x_i + W_v sum_j softmax_j(m_j) x_j, with m = W_k x.

    W_v (C -> C, no bias) starts at 0 with `zero_init`; there is no norm. A map of `dims`
    dimensions -> the same. Source: Cao et al. 2019, GCNet, equation 3.
    """

    def __init__(
        self,
        channels: int,
        *,
        dims: int = 3,
        axes: str | None = None,
        group_frames: int | None = None,
        init: str = "normal",
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.axes = single_pass(axes, dims, group_frames)
        self.group_frames = group_frames
        self.mask = pointwise(channels, 1, dims=dims)
        self.context = _Context()
        self.out = pointwise(channels, channels, bias=False, dims=dims)
        initialize(self, init)
        if zero_init:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x, self.dims)
        change = self.axes.attend(self.transform, self.group_frames, tokens)
        return x + to_map(change, self.dims)

    def transform(self, tokens: Tensor) -> Tensor:  # (B, N, C) -> the same
        return self.out(self.context(self.mask(tokens), tokens)).expand_as(tokens)


FUSIONS: dict[str, str] = {
    "add": "x_i + delta(c)",
    "mul": "x_i sigmoid(delta(c))",
    "mul_add": "x_i sigmoid(delta'(c)) + delta(c)",
}
POOLINGS: dict[str, str] = {
    "attention": "c = sum_j softmax_j(m_j) x_j",
    "mean": "c = mean_j x_j",
}


class GlobalContextBlock(nn.Module):
    """z_i = x_i and the context c of all positions, by a formula of FUSIONS and one of POOLINGS.

    delta is a bottleneck C -> ratio C -> C with LayerNorm and ReLU. With `zero_init` its last
    layer starts at 0, so that z = x at first, or z = x / 2 if x is multiplied. A map of `dims`
    dimensions -> the same. Source: Cao et al. 2019, GCNet, equation 5 and figure 4. Their block is
    before the residual sum; here it is after it, as all blocks of the family are.
    """

    def __init__(
        self,
        channels: int,
        *,
        fusion: str = "add",
        pooling: str = "attention",
        dims: int = 3,
        axes: str | None = None,
        group_frames: int | None = None,
        ratio: float = 0.25,
        inner: int | None = None,
        init: str = "normal",
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        choose("fusion", fusion, FUSIONS)
        choose("pooling", pooling, POOLINGS)
        self.fusion = fusion
        self.dims = dims
        self.axes = single_pass(axes, dims, group_frames)
        self.group_frames = group_frames
        inner = inner_channels(channels, ratio, inner)
        self.mask = pointwise(channels, 1, dims=dims) if pooling == "attention" else None
        self.context = _Context()
        self.reduce = pointwise(channels, inner, dims=dims)
        self.norm = nn.LayerNorm(inner)
        self.expand = pointwise(inner, channels, dims=dims)
        if fusion == "mul_add":
            self.mul_reduce = pointwise(channels, inner, dims=dims)
            self.mul_norm = nn.LayerNorm(inner)
            self.mul_expand = pointwise(inner, channels, dims=dims)
        initialize(self, init)
        if zero_init:
            nn.init.zeros_(self.expand.weight)
        if zero_init and fusion == "mul_add":
            nn.init.zeros_(self.mul_expand.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x, self.dims)
        change = to_map(self.axes.attend(self.transform, self.group_frames, tokens), self.dims)
        match self.fusion:
            case "add":
                return x + change
            case "mul":
                return x * torch.sigmoid(change)
        factor, shift = change.chunk(2, dim=1)
        return x * torch.sigmoid(factor) + shift

    def transform(self, tokens: Tensor) -> Tensor:  # (B, N, C) -> the same, or (B, N, 2 C)
        if self.mask is None:
            context = tokens.mean(dim=1, keepdim=True)  # (B, 1, C)
        else:
            context = self.context(self.mask(tokens), tokens)
        change = self.expand(F.relu(self.norm(self.reduce(context))))
        if self.fusion == "mul_add":
            factor = self.mul_expand(F.relu(self.mul_norm(self.mul_reduce(context))))
            change = torch.cat([factor, change], dim=2)
        return change.expand(-1, tokens.shape[1], -1)
