"""vec(y) = vec(theta) (vec(phi) . vec(g)) (N d)^-0.5, without an affinity."""

import torch
from torch import Tensor


def compact_generalized(theta: Tensor, phi: Tensor, g: Tensor, groups: int) -> Tensor:
    """vec(y) = vec(theta) (vec(phi) . vec(g)) (N d)^-0.5 within each of `groups` channel groups.

    theta, phi, g (B, N, groups d) -> the same shape. vec() concatenates the positions and the d
    channels of a group. With the dot-product kernel, the (N d) x (N d) affinity
    vec(theta) vec(phi)^T is not needed: one number per group is. O(N) in time and memory.
    Source: Yue et al. 2018, Compact Generalized Non-local Network, equations 8 and 13.
    """
    wide = torch.promote_types(g.dtype, torch.float32)
    with torch.autocast(g.device.type, enabled=False):
        product = (phi.to(wide) * g.to(wide)).unflatten(2, (groups, -1))  # (B, N, groups, d)
        n, d = product.shape[1], product.shape[3]
        weight = product.sum(dim=(1, 3)) * (n * d) ** -0.5  # (B, groups)
        return theta * weight.repeat_interleave(d, dim=1).unsqueeze(1).to(theta.dtype)
