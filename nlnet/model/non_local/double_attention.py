"""Gather a handful of descriptors from all positions, distribute them to each: A2-Nets."""

import torch
from torch import Tensor, nn

from nlnet.model.non_local.axes import single_pass
from nlnet.model.non_local.block import (
    Embedding,
    Output,
    initialize,
    inner_channels,
    output_layers,
)
from nlnet.model.non_local.tokens import Operation, Pointwise, to_map, to_tokens


def double_attention(features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
    """y_i = sum_n softmax_n(v_in) sum_j softmax_j(b_jn) a_j.

    features a (B, M, m), gathering logits b (B, M, n), distributing logits v (B, N, n) ->
    (B, N, m). The first softmax runs over positions, the second over the n descriptors; two
    products of O((N + M) m n). Source: Chen et al. 2018, A2-Nets: Double Attention Networks,
    equations 2 to 5.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        gathered = torch.softmax(gather.to(wide), dim=1).mT @ features.to(wide)  # (B, n, m)
        shares = torch.softmax(distribute.to(wide), dim=2).to(features.dtype)
        return shares @ gathered.to(features.dtype)


class DoubleAttention(Operation):
    """The function above, (B, M, m), (B, M, n), (B, N, n) -> (B, N, m)."""

    def forward(self, features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
        return double_attention(features, gather, distribute)

    def multiply_adds(self, features: Tensor, gather: Tensor, distribute: Tensor) -> int:
        return (gather.numel() + distribute.numel()) * features.shape[2]


class DoubleAttentionBlock(nn.Module):
    """z = x + norm(W_z y), y the double attention of three embeddings of x.

    phi holds the features a (C -> m), theta the gathering logits b (C -> n), rho the distributing
    logits v (C -> n); m = n = ratio C (the paper: a quarter). (B, C, T, H, W) -> the same.
    """

    def __init__(
        self,
        channels: int,
        *,
        axes: str = "spacetime",
        group_frames: int | None = None,
        embedding: Embedding,
        output: Output,
    ) -> None:
        super().__init__()
        self.axes = single_pass(axes)
        self.group_frames = group_frames
        inner = inner_channels(channels, embedding.ratio)
        self.theta = Pointwise(channels, inner, bias=embedding.bias)
        self.phi = Pointwise(channels, inner, bias=embedding.bias)
        self.rho = Pointwise(channels, inner, bias=embedding.bias)
        self.out = Pointwise(inner, channels, bias=output.bias)
        self.attention = DoubleAttention()
        initialize(self, embedding.init)
        self.norm, self.gamma = output_layers(self.out, output)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        groups = self.axes.groups(tokens.shape[1], self.group_frames)
        features, gather, distribute = (
            self.axes.fold(conv(tokens), groups) for conv in (self.phi, self.theta, self.rho)
        )
        y = self.axes.unfold(self.attention(features, gather, distribute), tokens, groups)
        z = self.norm(to_map(self.out(y)))
        return x + z if self.gamma is None else x + self.gamma * z
