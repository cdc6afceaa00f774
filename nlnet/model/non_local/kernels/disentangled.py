"""The two halves of an attention, added instead of multiplied.

q_i . k_j = (q_i - mu_q) . (k_j - mu_k) + mu_q . k_j + (terms that are constant in j). A softmax of
the sum is the product of a whitened pairwise and a unary softmax; disentangled, each has its own.
"""

import torch
from torch import Tensor

from nlnet.model.non_local.kernels.softmax import softmax_attention


def whitened_pairwise(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """y_i = sum_j softmax_j(scale (q_i - mu_q) . (k_j - mu_k)) g_j, mu a mean over positions.

    theta (B, N, d), phi (B, M, d), g (B, M, e) -> (B, N, e). mu_k adds a constant to each row of
    logits, which the softmax ignores: only theta is centred. `scale` is d^-0.5 over the
    temperature. Source: Yin et al. 2020, Disentangled Non-Local Neural Networks, section 3.
    """
    return softmax_attention(theta - theta.mean(dim=1, keepdim=True), phi, g, scale)


def unary_context(mask: Tensor, g: Tensor) -> Tensor:
    """c = sum_j softmax_j(m_j) g_j: one vector, the same for every query.

    Logits mask (B, M), g (B, M, e) -> (B, 1, e), in O(M e); softmax in float32 at least. It is the
    unary term of Yin et al. 2020 and the context of Cao et al. 2019 (GCNet).
    """
    wide = torch.promote_types(mask.dtype, torch.float32)
    with torch.autocast(g.device.type, enabled=False):
        weights = torch.softmax(mask.to(wide), dim=1).to(g.dtype)
        return weights.unsqueeze(1) @ g


def disentangled(theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor, scale: float) -> Tensor:
    """y_i = sum_j (softmax_j(scale (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)) g_j.

    theta (B, N, d), phi (B, M, d), g (B, M, e), logits mask (B, M) -> (B, N, e). Source: Yin et
    al. 2020, equation 9.
    """
    return whitened_pairwise(theta, phi, g, scale) + unary_context(mask, g)
