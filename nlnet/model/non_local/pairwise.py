"""The pairwise functions f(x_i, x_j) of a non-local block, and their names."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nlnet.model.non_local.kernels.concatenation import concatenation
from nlnet.model.non_local.kernels.context import unary_context
from nlnet.model.non_local.kernels.disentangled import disentangled, whitened_pairwise
from nlnet.model.non_local.kernels.dot_product import dot_product
from nlnet.model.non_local.kernels.softmax import softmax_attention
from nlnet.model.non_local.tokens import Operation


class Maps(NamedTuple):
    """The inputs of a pairwise function: tokens of one group of positions."""

    theta: Tensor  # queries (B, N, d)
    phi: Tensor  # keys (B, M, d)
    g: Tensor  # values (B, M, e)
    mask: Tensor | None  # logits of a unary term (B, M), if the function is `unary`


class Pairwise(Operation):
    """y_i = 1/C(x) sum_j f(x_i, x_j) g_j: Maps -> (B, N, e)."""

    embedded: ClassVar[bool] = True  # theta and phi are learned; otherwise they are x itself
    unary: ClassVar[bool] = False  # the block has a mask, C -> 1 channels

    def __init__(self, inner: int, *, scale: bool = True, temperature: float = 1.0) -> None:
        """`inner` is d. `scale` multiplies the logits of a softmax by d^-0.5; `temperature`
        divides the logits of the whitened term."""
        super().__init__()
        self.scale = inner**-0.5 if scale else 1.0
        self.temperature = temperature

    @abstractmethod
    def forward(self, maps: Maps) -> Tensor: ...

    def multiply_adds(self, maps: Maps) -> int:
        """N M (d + e): a product over d channels and a sum of e channels for each pair."""
        return pairs(maps) * (maps.phi.shape[2] + maps.g.shape[2])

    def after_theta(self) -> Tensor | None:
        """A linear map (d', d) that the block applies after theta, in one product: C -> d'."""
        return None

    def after_phi(self) -> Tensor | None:
        """The same for phi."""
        return None


class Gaussian(Pairwise):
    """f = exp(x_i . x_j), C = sum_j f; never scaled. Wang et al. 2018, equation 2."""

    embedded = False

    def forward(self, maps: Maps) -> Tensor:
        return softmax_attention(maps.theta, maps.phi, maps.g, 1.0)


class EmbeddedGaussian(Pairwise):
    """f = exp(s theta_i . phi_j), C = sum_j f. Wang et al. 2018, equation 3; s is in their code."""

    def forward(self, maps: Maps) -> Tensor:
        return softmax_attention(maps.theta, maps.phi, maps.g, self.scale)


class DotProduct(Pairwise):
    """f = theta_i . phi_j, C = M. Wang et al. 2018, equation 4."""

    def forward(self, maps: Maps) -> Tensor:
        return dot_product(maps.theta, maps.phi, maps.g)


class Concatenation(Pairwise):
    """f = ReLU(w . [theta_i, phi_j]), C = M. Wang et al. 2018, equation 6."""

    def __init__(self, inner: int, *, scale: bool = True, temperature: float = 1.0) -> None:
        super().__init__(inner, scale=scale, temperature=temperature)
        self.weight = nn.Parameter(0.01 * torch.randn(2 * inner))  # of theta, then of phi

    def after_theta(self) -> Tensor:
        return self.weight.chunk(2)[0].unsqueeze(0)

    def after_phi(self) -> Tensor:
        return self.weight.chunk(2)[1].unsqueeze(0)

    def forward(self, maps: Maps) -> Tensor:
        return concatenation(maps.theta.squeeze(2), maps.phi.squeeze(2), maps.g)

    def multiply_adds(self, maps: Maps) -> int:
        return pairs(maps) * (self.weight.numel() + maps.g.shape[2])


class Whitened(Pairwise):
    """The pairwise term of `Disentangled` alone."""

    def forward(self, maps: Maps) -> Tensor:
        return whitened_pairwise(maps.theta, maps.phi, maps.g, self.scale / self.temperature)


class Unary(Pairwise):
    """The unary term of `Disentangled` alone: one context for all queries."""

    embedded = False
    unary = True

    def forward(self, maps: Maps) -> Tensor:
        assert maps.mask is not None
        return unary_context(maps.mask, maps.g).expand(-1, maps.theta.shape[1], -1)

    def multiply_adds(self, maps: Maps) -> int:
        return maps.g.numel()


class Disentangled(Pairwise):
    """The sum of a whitened pairwise term and a unary term. Yin et al. 2020, equation 9."""

    unary = True

    def forward(self, maps: Maps) -> Tensor:
        assert maps.mask is not None
        scale = self.scale / self.temperature
        return disentangled(maps.theta, maps.phi, maps.g, maps.mask, scale)

    def multiply_adds(self, maps: Maps) -> int:
        return super().multiply_adds(maps) + maps.g.numel()


def pairs(maps: Maps) -> int:
    """The number of pairs of a query and a key in the whole batch."""
    return maps.theta.shape[:2].numel() * maps.phi.shape[1]


PAIRWISE: dict[str, type[Pairwise]] = {
    "gaussian": Gaussian,
    "embedded_gaussian": EmbeddedGaussian,
    "dot_product": DotProduct,
    "concatenation": Concatenation,
    "disentangled": Disentangled,
    "whitened": Whitened,
    "unary": Unary,
}
