"""y_i = sum_j softmax_j(s q_i . k_j) v_j with the affinity in memory, on tensor cores.

The form of a CUDA device for few positions. Logits and softmax are in float32. The weights are kept
for the backward pass in the dtype of the values, and all factors of products have that dtype.
Shapes: queries q (B, N, d), keys k (B, M, d), values v (B, M, e), output (B, N, e).
"""

import torch
from torch import Tensor

from nlnet.model.non_local.kernels.products import wide_product
from nlnet.model.non_local.kernels.softmax_gradient import register_gradient


def kept_affinity(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The equation, for q, k and v of one dtype; (B, N, M) weights are kept."""
    return kept_softmax(q, k, v, scale)[0]


@torch.library.custom_op("nlnet::kept_softmax", mutates_args=())
def kept_softmax(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """y and the weights (B, N, M), whose rows have the sum 1."""
    weights = torch.softmax(wide_product(q, k.mT).mul_(scale), dim=2).to(v.dtype)
    return weights @ v, weights


@torch.library.custom_op("nlnet::kept_softmax_backward", mutates_args=())
def _kept_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, weights: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v.

    Let P be the weights, D = dy v^T, and S the products q k^T. Then dv = P^T dy,
    dS = scale P (D - rowsum(dy y)), dq = dS k, dk = dS^T q.
    """
    products = wide_product(dy, v.mT)
    inner = (dy.to(products.dtype) * y).sum(dim=2, keepdim=True)
    products = products.sub_(inner).mul_(weights).mul_(scale).to(q.dtype)
    return products @ k, products.mT @ q, weights.mT @ dy


@kept_softmax.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return v.new_empty(*q.shape[:2], v.shape[2]), v.new_empty(*q.shape[:2], k.shape[1])


register_gradient(kept_softmax, _kept_backward)
