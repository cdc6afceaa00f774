"""y_i = sum_n softmax_n(v_in) sum_j softmax_j(b_jn) a_j, in time linear in the positions."""

import torch
from torch import Tensor


def double_attention(features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
    """Gather n descriptors from all positions, and distribute them to each position.

    Features a (B, M, m), gathering logits b (B, M, n), distributing logits v (B, N, n) ->
    (B, N, m). The first softmax is over the positions, the second over the n descriptors; there
    are two products of O((N + M) m n). Source: Chen et al. 2018, A2-Nets: Double Attention
    Networks, equations 2 to 5.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        gathered = torch.softmax(gather.to(wide), dim=1).mT @ features.to(wide)  # (B, n, m)
        shares = torch.softmax(distribute.to(wide), dim=2).to(features.dtype)
        return shares @ gathered.to(features.dtype)
