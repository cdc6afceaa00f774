"""The compact generalized non-local block (CGNL): attention over positions and channels at once."""

from torch import Tensor, nn

from nlnet.errors import ArgumentError
from nlnet.model.non_local.axes import single_pass
from nlnet.model.non_local.kernels.compact_generalized import compact_generalized, gaussian_series
from nlnet.model.non_local.layers import CONVS, initialize, inner_channels
from nlnet.model.non_local.tokens import Operation, pointwise, to_map, to_tokens


class _CompactGeneralized(Operation):
    """`compact_generalized` with a number of channel groups: three (B, N, C') -> (B, N, C')."""

    def __init__(self, groups: int, scale: bool, order: int | None) -> None:
        super().__init__()
        self.groups, self.scale, self.order = groups, scale, order

    def forward(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        if self.order is None:
            return compact_generalized(theta, phi, g, self.groups, scale=self.scale)
        return gaussian_series(theta, phi, g, self.groups, scale=self.scale, order=self.order)

    def multiply_adds(self, theta: Tensor, phi: Tensor, g: Tensor) -> int:
        return (phi.numel() + theta.numel()) * (1 if self.order is None else self.order + 1)


class CompactGeneralizedBlock(nn.Module):
    """z = x + norm(W_z y), where y is the compact generalized attention of theta, phi and g.

    W_z has the groups of the attention, the norm is a GroupNorm with as many groups, and no
    convolution has a bias, as in the authors' code. `scale` multiplies by (N d)^-0.5. With an
    `order` the kernel is the Taylor series of a Gaussian instead of a product. A map of
    `dims` dimensions -> the same. Raises ArgumentError if the groups do not divide the channels.
    Source: Yue et al. 2018, Compact Generalized Non-local Network.
    """

    def __init__(
        self,
        channels: int,
        *,
        dims: int = 3,
        axes: str | None = None,
        group_frames: int | None = None,
        ratio: float = 0.5,
        inner: int | None = None,
        groups: int = 8,
        scale: bool = True,
        order: int | None = None,
        init: str = "normal",
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.axes = single_pass(axes, dims, group_frames)
        self.group_frames = group_frames
        inner = inner_channels(channels, ratio, inner)
        if inner % groups != 0 or channels % groups != 0:
            raise ArgumentError(
                f"ratio={ratio} makes {inner} of {channels} channels; block=compact_generalized "
                f"needs multiples of its {groups} groups"
            )
        self.theta = pointwise(channels, inner, bias=False, dims=dims)
        self.phi = pointwise(channels, inner, bias=False, dims=dims)
        self.g = pointwise(channels, inner, bias=False, dims=dims)
        self.out = CONVS[dims](inner, channels, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, channels)
        self.attention = _CompactGeneralized(groups, scale, order)
        initialize(self, init)
        if zero_init:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x, self.dims)
        theta, phi, g = self.theta(tokens), self.phi(tokens), self.g(tokens)
        y = self.axes.attend(self.attention, self.group_frames, theta, phi, g)
        return x + self.norm(self.out(to_map(y, self.dims)))
