"""Non-local attention over positions and channels at once: CGNL."""

import torch
from torch import Tensor, nn

from nlnet.errors import UsageError
from nlnet.model.non_local.axes import single_pass
from nlnet.model.non_local.block import initialize, inner_channels
from nlnet.model.non_local.tokens import Operation, Pointwise, to_map, to_tokens


def compact_generalized(theta: Tensor, phi: Tensor, g: Tensor, groups: int) -> Tensor:
    """vec(y) = vec(theta) (vec(phi) . vec(g)) (N d)^-0.5 within each of `groups` channel groups.

    theta, phi, g (B, N, groups d) -> the same shape. vec() lines up the positions and the d
    channels of a group, so that with the dot-product kernel the (N d) x (N d) affinity
    vec(theta) vec(phi)^T is never needed: one number per group is. O(N) in time and memory.
    Source: Yue et al. 2018, Compact Generalized Non-local Network, equations 8 and 13.
    """
    wide = torch.promote_types(g.dtype, torch.float32)
    with torch.autocast(g.device.type, enabled=False):
        product = (phi.to(wide) * g.to(wide)).unflatten(2, (groups, -1))  # (B, N, groups, d)
        n, d = product.shape[1], product.shape[3]
        weight = product.sum(dim=(1, 3)) * (n * d) ** -0.5  # (B, groups)
        return theta * weight.repeat_interleave(d, dim=1).unsqueeze(1).to(theta.dtype)


class CompactGeneralized(Operation):
    """The function above for a number of channel groups, three times (B, N, C') -> (B, N, C')."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return compact_generalized(theta, phi, g, self.groups)

    def multiply_adds(self, theta: Tensor, phi: Tensor, g: Tensor) -> int:
        return phi.numel() + theta.numel()


class CompactGeneralizedBlock(nn.Module):
    """z = x + norm(W_z y), y the compact generalised attention of theta, phi and g.

    W_z is grouped like the attention, the norm is a GroupNorm of as many groups, no map has a
    bias: as in the authors' code. (B, C, T, H, W) -> the same. Raises UsageError where the groups
    do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        axes: str = "spacetime",
        group_frames: int | None = None,
        ratio: float = 0.5,
        groups: int = 8,
        init: str = "normal",
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.axes = single_pass(axes)
        self.group_frames = group_frames
        inner = inner_channels(channels, ratio)
        if inner % groups != 0 or channels % groups != 0:
            raise UsageError(
                f"model.non_local.ratio={ratio} makes {inner} of {channels} channels; "
                f"block=compact_generalized needs multiples of its {groups} groups"
            )
        self.theta = Pointwise(channels, inner, bias=False)
        self.phi = Pointwise(channels, inner, bias=False)
        self.g = Pointwise(channels, inner, bias=False)
        self.out = nn.Conv3d(inner, channels, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, channels)
        self.attention = CompactGeneralized(groups)
        initialize(self, init)
        if zero_init:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        frames = self.axes.groups(tokens.shape[1], self.group_frames)
        theta, phi, g = (
            self.axes.fold(conv(tokens), frames) for conv in (self.theta, self.phi, self.g)
        )
        y = self.attention(theta, phi, g)
        return x + self.norm(self.out(to_map(self.axes.unfold(y, tokens, frames))))
