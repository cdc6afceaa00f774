"""The double attention block: gather descriptors from all positions, distribute them to each."""

from torch import Tensor, nn

from nlnet.model.non_local.axes import single_pass
from nlnet.model.non_local.kernels.double_attention import double_attention
from nlnet.model.non_local.layers import (
    Embedding,
    Output,
    initialize,
    inner_channels,
    output_layers,
)
from nlnet.model.non_local.tokens import Operation, pointwise, to_map, to_tokens


class _DoubleAttention(Operation):
    """`double_attention`: (B, N, m), (B, N, n), (B, N, n) -> (B, N, m)."""

    def forward(self, features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
        return double_attention(features, gather, distribute)

    def multiply_adds(self, features: Tensor, gather: Tensor, distribute: Tensor) -> int:
        return (gather.numel() + distribute.numel()) * features.shape[2]


class DoubleAttentionBlock(nn.Module):
    """z = x + norm(W_z y), where y is the double attention of three embeddings of x.

    phi computes the features a (C -> m), theta the gathering logits b (C -> n), rho the
    distributing logits v (C -> n); m = n = ratio C (ratio 0.25 in the paper). A map of
    `dims` dimensions -> the same. Source: Chen et al. 2018, A2-Nets: Double Attention Networks.
    """

    def __init__(
        self,
        channels: int,
        *,
        dims: int = 3,
        axes: str | None = None,
        group_frames: int | None = None,
        embedding: Embedding,
        output: Output,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.axes = single_pass(axes, dims, group_frames)
        self.group_frames = group_frames
        inner = inner_channels(channels, embedding.ratio)
        self.theta = pointwise(channels, inner, bias=embedding.bias, dims=dims)
        self.phi = pointwise(channels, inner, bias=embedding.bias, dims=dims)
        self.rho = pointwise(channels, inner, bias=embedding.bias, dims=dims)
        self.out = pointwise(inner, channels, bias=output.bias, dims=dims)
        self.attention = _DoubleAttention()
        initialize(self, embedding.init)
        self.norm, self.gamma = output_layers(self.out, output, dims)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x, self.dims)
        features, gather, distribute = self.phi(tokens), self.theta(tokens), self.rho(tokens)
        y = self.axes.attend(self.attention, self.group_frames, features, gather, distribute)
        z = self.norm(to_map(self.out(y), self.dims))
        return x + z if self.gamma is None else x + self.gamma * z
