"""The equations of the family, with N x M affinities: the oracle of the tests.

Tokens: theta (B, N, d), phi (B, M, d), g (B, M, e), a (B, N), b and mask (B, M) -> (B, N, e).
"""

import torch
from torch import Tensor


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    return torch.softmax(torch.einsum("bnd,bmd->bnm", theta, phi) * scale, dim=2) @ g


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    return torch.einsum("bnd,bmd->bnm", theta, phi) / phi.shape[1] @ g


def concatenation(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    return torch.relu(a[:, :, None] + b[:, None, :]) @ g / g.shape[1]


def concatenated_embeddings(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    n, m = theta.shape[1], phi.shape[1]
    pairs = [theta[:, :, None].expand(-1, -1, m, -1), phi[:, None].expand(-1, n, -1, -1)]
    return torch.relu(torch.cat(pairs, dim=3) @ weight) @ g / m


def whitened_pairwise(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    theta = theta - theta.mean(dim=1, keepdim=True)
    phi = phi - phi.mean(dim=1, keepdim=True)
    return softmax_attention(theta, phi, g, scale)


def unary_context(mask: Tensor, g: Tensor) -> Tensor:
    return (torch.softmax(mask, dim=1)[:, :, None] * g).sum(dim=1, keepdim=True)


def disentangled(theta: Tensor, phi: Tensor, g: Tensor, mask: Tensor, scale: float) -> Tensor:
    return whitened_pairwise(theta, phi, g, scale) + unary_context(mask, g)


def double_attention(features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
    shares = torch.einsum(
        "bin,bjn->bij", torch.softmax(distribute, dim=2), torch.softmax(gather, dim=1)
    )
    return shares @ features


def compact_generalized(theta: Tensor, phi: Tensor, g: Tensor, groups: int) -> Tensor:
    """One group and clip at a time, with the affinity of all its positions and channels."""
    y = torch.empty_like(theta)
    size = theta.shape[2] // groups
    for b in range(theta.shape[0]):
        for group in range(groups):
            chosen = slice(group * size, (group + 1) * size)
            vectors = [x[b, :, chosen].flatten() for x in (theta, phi, g)]
            affinity = torch.outer(vectors[0], vectors[1]) / len(vectors[0]) ** 0.5
            y[b, :, chosen] = (affinity @ vectors[2]).unflatten(0, (-1, size))
    return y
