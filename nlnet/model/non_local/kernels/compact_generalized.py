"""vec(y) = vec(theta) (vec(phi) . vec(g)) (N d)^-0.5, without an affinity."""

from math import exp, factorial

import torch
from torch import Tensor

WIDTH = 1e-4  # gamma of the Gaussian exp(-gamma |theta - phi|^2), in the authors' code


def compact_generalized(
    theta: Tensor, phi: Tensor, g: Tensor, groups: int, *, scale: bool = True
) -> Tensor:
    """vec(y) = vec(theta) (vec(phi) . vec(g)) (N d)^-0.5 within each of `groups` channel groups.

    Without `scale` there is no factor (N d)^-0.5. theta, phi, g (B, N, groups d) -> the same shape.
    vec() concatenates the positions and the d channels of a group. With the dot-product kernel, the
    (N d) x (N d) affinity vec(theta) vec(phi)^T is not needed: one number per group is. O(N) in
    time and memory.
    Source: Yue et al. 2018, Compact Generalized Non-local Network, equations 8 and 13.
    """
    wide = torch.promote_types(g.dtype, torch.float32)
    with torch.autocast(g.device.type, enabled=False):
        product = (phi.to(wide) * g.to(wide)).unflatten(2, (groups, -1))  # (B, N, groups, d)
        n, d = product.shape[1], product.shape[3]
        weight = product.sum(dim=(1, 3))  # (B, groups)
        if scale:
            weight = weight * (n * d) ** -0.5
        return theta * weight.repeat_interleave(d, dim=1).unsqueeze(1).to(theta.dtype)


def gaussian_series(
    theta: Tensor, phi: Tensor, g: Tensor, groups: int, *, scale: bool, order: int
) -> Tensor:
    """The sum of `compact_generalized` of the powers theta^o and phi^o up to an order.

    The term o has the factor (2 gamma)^o / o! exp(-2 gamma), of the Taylor series of a Gaussian.
    The shapes are those of `compact_generalized`. Source: Yue et al. 2018, section 3.3, with the
    constants of the authors' code.
    """
    y = torch.zeros_like(theta)
    for o in range(order + 1):
        factor = (2 * WIDTH) ** o / factorial(o) * exp(-2 * WIDTH)
        y = y + factor * compact_generalized(theta**o, phi**o, g, groups, scale=scale)
    return y
