"""The pairwise functions as public code computes them, with the N x M affinity in memory.

The benchmark compares with these forms. They compute in float32, in the order of the equations,
with batched products. The concatenation adds two scalars for each pair instead of building a
vector of 2 d values for each pair.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nlnet.model.non_local.pairwise import (
    Concatenation,
    Disentangled,
    DotProduct,
    EmbeddedGaussian,
    Gaussian,
    Maps,
    Pairwise,
)


class _NaiveGaussian(Gaussian):
    def forward(self, maps: Maps) -> Tensor:
        return attention(maps.theta, maps.phi, maps.g)


class _NaiveEmbeddedGaussian(EmbeddedGaussian):
    def forward(self, maps: Maps) -> Tensor:
        return attention(maps.theta * self.scale, maps.phi, maps.g)


class _NaiveDotProduct(DotProduct):
    def forward(self, maps: Maps) -> Tensor:
        return maps.theta @ maps.phi.mT / maps.phi.shape[1] @ maps.g


class _NaiveConcatenation(Concatenation):
    def forward(self, maps: Maps) -> Tensor:
        return F.relu(maps.theta + maps.phi.mT) / maps.phi.shape[1] @ maps.g


class _NaiveDisentangled(Disentangled):
    def forward(self, maps: Maps) -> Tensor:
        assert maps.mask is not None
        theta = maps.theta - maps.theta.mean(dim=1, keepdim=True)
        phi = maps.phi - maps.phi.mean(dim=1, keepdim=True)
        unary = torch.softmax(maps.mask, dim=1).unsqueeze(1) @ maps.g
        return attention(theta * (self.scale / self.temperature), phi, maps.g) + unary


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T) v; q (B, N, d), k (B, M, d), v (B, M, e) -> (B, N, e)."""
    return torch.softmax(q @ k.mT, dim=2) @ v


NAIVE: dict[str, type[Pairwise]] = {
    "gaussian": _NaiveGaussian,
    "embedded_gaussian": _NaiveEmbeddedGaussian,
    "dot_product": _NaiveDotProduct,
    "concatenation": _NaiveConcatenation,
    "disentangled": _NaiveDisentangled,
}
