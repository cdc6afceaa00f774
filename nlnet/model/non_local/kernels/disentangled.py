"""The two terms of an attention, added instead of multiplied.

q_i . k_j = (q_i - mu_q) . (k_j - mu_k) + mu_q . k_j + (terms that are constant in j). A softmax of
this sum is the product of a whitened pairwise term and a unary term, up to a constant. Here each
term has a softmax of its own.
"""

from torch import Tensor

from nlnet.model.non_local.kernels.context import unary_context
from nlnet.model.non_local.kernels.softmax import softmax_attention


def whitened_pairwise(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """y_i = sum_j softmax_j(scale (q_i - mu_q) . (k_j - mu_k)) g_j; mu is a mean over positions.

    theta (B, N, d), phi (B, M, d), g (B, M, e) -> (B, N, e). mu_k adds a constant to each row of
    logits, which a softmax ignores, so only theta is centered. `scale` is d^-0.5 divided by the
    temperature. Source: Yin et al. 2020, Disentangled Non-Local Neural Networks, section 3.
    """
    return softmax_attention(theta - theta.mean(dim=1, keepdim=True), phi, g, scale)


def disentangled(theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor, scale: float) -> Tensor:
    """y_i = sum_j (softmax_j(scale (q_i - mu_q) . (k_j - mu_k)) + softmax_j(m_j)) g_j.

    theta (B, N, d), phi (B, M, d), g (B, M, e), logits mask (B, M) -> (B, N, e). Source: Yin et
    al. 2020, equation 9.
    """
    return whitened_pairwise(theta, phi, g, scale) + unary_context(mask, g)
