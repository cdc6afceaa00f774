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
from nlnet.model.non_local.tokens import Operation, Pointwise, pointwise, to_map, to_tokens


class _DoubleAttention(Operation):
    """`double_attention`: (B, N, m), (B, N, n), (B, N, n) -> (B, N, m)."""

    def forward(self, features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
        return double_attention(features, gather, distribute)

    def multiply_adds(self, features: Tensor, gather: Tensor, distribute: Tensor) -> int:
        return (gather.numel() + distribute.numel()) * features.shape[2]


class DoubleAttentionBlock(nn.Module):
    """z = x + norm(W_z y), where y is the double attention of three embeddings of x.

    phi computes the features a (C -> m), theta the gathering logits b (C -> n), rho the
    distributing logits v (C -> n); m = n = ratio C (ratio 0.25 in the paper) unless
    `descriptors` is n. A map of `dims` dimensions -> the same, or a map of m channels without W_z
    and without the residual sum. Source: Chen et al. 2018, A2-Nets: Double Attention Networks.
    """

    def __init__(
        self,
        channels: int,
        *,
        dims: int = 3,
        axes: str | None = None,
        group_frames: int | None = None,
        descriptors: int | None = None,
        embedding: Embedding = Embedding(),
        output: Output = Output(),
    ) -> None:
        super().__init__()
        self.dims = dims
        self.axes = single_pass(axes, dims, group_frames)
        self.group_frames = group_frames
        inner = inner_channels(channels, embedding.ratio, embedding.inner)
        count = descriptors or inner
        self.residual = output.residual
        self.theta = pointwise(channels, count, bias=embedding.bias, dims=dims)
        self.phi = pointwise(channels, inner, bias=embedding.bias, dims=dims)
        self.rho = pointwise(channels, count, bias=embedding.bias, dims=dims)
        self.out: nn.Module = nn.Identity()
        if output.project:
            self.out = pointwise(inner, channels, bias=output.bias, dims=dims)
        self.attention = _DoubleAttention()
        initialize(self, embedding.init)
        last = self.out if isinstance(self.out, Pointwise) else self.phi
        self.norm, self.gamma = output_layers(last, output, dims)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x, self.dims)
        features, gather, distribute = self.phi(tokens), self.theta(tokens), self.rho(tokens)
        y = self.axes.attend(self.attention, self.group_frames, features, gather, distribute)
        z = self.norm(to_map(self.out(y), self.dims))
        if self.gamma is not None:
            z = self.gamma * z
        return x + z if self.residual else z
