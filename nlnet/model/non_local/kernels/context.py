"""One context vector for all queries."""

import torch
from torch import Tensor


def unary_context(mask: Tensor, g: Tensor) -> Tensor:
    """c = sum_j softmax_j(m_j) g_j: one vector, the same for every query.

    Logits mask (B, M), g (B, M, e) -> (B, 1, e), in O(M e). The softmax is computed in float32 or
    wider. Source: the unary term of Yin et al. 2020; the context of Cao et al. 2019 (GCNet).
    """
    wide = torch.promote_types(mask.dtype, torch.float32)
    with torch.autocast(g.device.type, enabled=False):
        weights = torch.softmax(mask.to(wide), dim=1).to(g.dtype)
        return weights.unsqueeze(1) @ g
