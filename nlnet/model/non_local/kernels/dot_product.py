"""y_i = 1/M sum_j (theta_i . phi_j) g_j, by associativity."""

import torch
from torch import Tensor

from nlnet.model.non_local.kernels.products import mean_product


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """y = 1/M theta (phi^T g), or 1/M (theta phi^T) g if that takes fewer operations.

    theta (B, N, d), phi (B, M, d), g (B, M, e) -> (B, N, e), in the dtype of g. The first order
    takes (N + M) d e multiply-adds and no affinity, the second N M (d + e). The second order is
    faster only if N M is less than the size of the tokens, so the memory is linear in both cases.
    Sums over positions are computed in float32 or wider. Source: Wang et al. 2018, equation 4 with
    C(x) = M.
    """
    n, m, d, e = theta.shape[1], phi.shape[1], phi.shape[2], g.shape[2]
    wide = torch.promote_types(g.dtype, torch.float32)
    with torch.autocast(g.device.type, enabled=False):
        if (n + m) * d * e <= n * m * (d + e):
            if g.is_cuda and phi.dtype == g.dtype != wide:
                context = mean_product(phi, g)  # on tensor cores
            else:
                context = phi.to(wide).mT @ g.to(wide) / m  # (B, d, e)
            return theta.to(g.dtype) @ context.to(g.dtype)
        affinity = theta.to(wide) @ phi.to(wide).mT  # (B, N, M)
        return (affinity @ (g.to(wide) / m)).to(g.dtype)
