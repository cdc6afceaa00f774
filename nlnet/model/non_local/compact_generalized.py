"""The compact generalized non-local block (CGNL): attention over positions and channels at once."""

from torch import Tensor, nn

from nlnet.errors import ArgumentError
from nlnet.model.non_local.axes import single_pass
from nlnet.model.non_local.kernels.compact_generalized import compact_generalized
from nlnet.model.non_local.layers import CONVS, initialize, inner_channels
from nlnet.model.non_local.tokens import Operation, pointwise, to_map, to_tokens


class _CompactGeneralized(Operation):
    """`compact_generalized` with a number of channel groups: three (B, N, C') -> (B, N, C')."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return compact_generalized(theta, phi, g, self.groups)

    def multiply_adds(self, theta: Tensor, phi: Tensor, g: Tensor) -> int:
        return phi.numel() + theta.numel()


class CompactGeneralizedBlock(nn.Module):
    """z = x + norm(W_z y), where y is the compact generalized attention of theta, phi and g.

    W_z has the groups of the attention, the norm is a GroupNorm with as many groups, and no
    convolution has a bias, as in the authors' code. A map of `dims` dimensions -> the same. Raises
    ArgumentError if the groups do not divide the channels. Source: Yue et al. 2018, Compact
    Generalized Non-local Network.
    """

    def __init__(
        self,
        channels: int,
        *,
        dims: int = 3,
        axes: str | None = None,
        group_frames: int | None = None,
        ratio: float = 0.5,
        groups: int = 8,
        init: str = "normal",
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.axes = single_pass(axes, dims, group_frames)
        self.group_frames = group_frames
        inner = inner_channels(channels, ratio)
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
        self.attention = _CompactGeneralized(groups)
        initialize(self, init)
        if zero_init:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x, self.dims)
        theta, phi, g = self.theta(tokens), self.phi(tokens), self.g(tokens)
        y = self.axes.attend(self.attention, self.group_frames, theta, phi, g)
        return x + self.norm(self.out(to_map(y, self.dims)))
