"""The pairwise functions f(x_i, x_j) of a non-local block, and their names."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nlnet.model.non_local.kernels.concatenation import concatenation
from nlnet.model.non_local.kernels.context import unary_context
from nlnet.model.non_local.kernels.dot_product import dot_product
from nlnet.model.non_local.kernels.row_column import row_column_mean, row_column_softmax
from nlnet.model.non_local.kernels.softmax import softmax_attention
from nlnet.model.non_local.tokens import Operation


class Maps(NamedTuple):
    """The inputs of a pairwise function: tokens of one group of positions, and of one head."""

    theta: Tensor  # queries (B, N, d)
    phi: Tensor  # keys (B, M, d)
    g: Tensor  # values (B, M, e)
    mask: Tensor | None  # logits of a unary term (B, M), if the function is `unary`
    # The positions are frames with rows of so many positions, and a query attends to its row and
    # its column. None: it attends to all positions of the group.
    width: int | None = None


def softmax_sum(maps: Maps, scale: float, heads: int = 1) -> Tensor:
    """sum_j softmax_j(scale theta_i . phi_j) g_j over the keys of a query: (B, N, e)."""
    theta, phi, g, _, width = maps
    if width is None:
        return softmax_attention(theta, phi, g, scale, heads)
    return row_column_softmax(theta, phi, g, scale, width)


def whitened_sum(maps: Maps, scale: float, heads: int = 1) -> Tensor:
    """sum_j softmax_j(scale (theta_i - mu) . phi_j) g_j, mu the mean of theta over positions.

    The mean of phi would add a constant to each row of logits, which a softmax ignores. Source:
    Yin et al. 2020, Disentangled Non-Local Neural Networks, section 3.
    """
    theta = maps.theta - maps.theta.mean(dim=1, keepdim=True)
    return softmax_sum(maps._replace(theta=theta), scale, heads)


def unary_sum(maps: Maps, logits: Tensor) -> Tensor:
    """sum_j softmax_j(m_j) g_j over the keys of a query, with logits m (B, M).

    It is (B, 1, e) if all queries have the same keys, otherwise (B, N, e).
    """
    if maps.width is None:
        return unary_context(logits, maps.g)
    ones = torch.ones_like(logits).unsqueeze(2)
    return row_column_softmax(ones, logits.unsqueeze(2), maps.g, 1.0, maps.width)


def _mean(kernel: Callable[..., Tensor], width: int | None, *maps: Tensor) -> Tensor:
    """1/M sum_j f_ij g_j over the M keys of a query, by a kernel for all keys: (B, N, e)."""
    return kernel(*maps) if width is None else row_column_mean(kernel, width, *maps)


class Pairwise(Operation):
    """y_i = 1/C(x) sum_j f(x_i, x_j) g_j: Maps -> (B, N, e)."""

    embedded: ClassVar[bool] = True  # theta and phi are learned; otherwise they are x itself
    unary: ClassVar[bool] = False  # the block has a mask, C -> 1 channels

    def __init__(
        self,
        inner: int,
        *,
        scale: bool | float = True,
        temperature: float = 1.0,
        heads: int = 1,
    ) -> None:
        """`inner` is d, the channels of all heads; Maps are those of a head. `scale` multiplies
        the logits of a softmax: True by (d / heads)^-0.5 if theta and phi are learned, a number by
        itself. `temperature` divides the logits of the whitened term."""
        super().__init__()
        self.heads = heads
        factor = (inner // heads) ** -0.5 if scale and self.embedded else 1.0
        self.scale = factor if isinstance(scale, bool) else scale
        self.temperature = temperature

    @abstractmethod
    def forward(self, maps: Maps) -> Tensor: ...

    def multiply_adds(self, maps: Maps) -> int:
        """N M (d + e): a product over d channels and a sum of e channels for each pair."""
        return pairs(maps) * (maps.phi.shape[2] + maps.g.shape[2])

    def after_theta(self) -> Tensor | None:
        """A linear map (d', d) that the block applies after theta, in one product: C -> d'.

        d' are the channels of all heads."""
        return None

    def after_phi(self) -> Tensor | None:
        """The same for phi."""
        return None


class Gaussian(Pairwise):
    """f = exp(x_i . x_j), C = sum_j f; scaled by a number alone. Wang et al. 2018, equation 2."""

    embedded = False

    def forward(self, maps: Maps) -> Tensor:
        return softmax_sum(maps, self.scale, self.heads)


class EmbeddedGaussian(Pairwise):
    """f = exp(s theta_i . phi_j), C = sum_j f. Wang et al. 2018, equation 3; s is in their code."""

    def forward(self, maps: Maps) -> Tensor:
        return softmax_sum(maps, self.scale, self.heads)


class DotProduct(Pairwise):
    """f = theta_i . phi_j, C = M. Wang et al. 2018, equation 4."""

    def forward(self, maps: Maps) -> Tensor:
        return _mean(dot_product, maps.width, maps.theta, maps.phi, maps.g)


class Concatenation(Pairwise):
    """f = ReLU(w . [theta_i, phi_j]), C = M. Wang et al. 2018, equation 6.

    Each head has its own w: that of its channels of theta and phi.
    """

    def __init__(
        self,
        inner: int,
        *,
        scale: bool | float = True,
        temperature: float = 1.0,
        heads: int = 1,
    ) -> None:
        super().__init__(inner, scale=scale, temperature=temperature, heads=heads)
        self.weight = nn.Parameter(0.01 * torch.randn(2 * inner))  # of theta, then of phi

    def after_theta(self) -> Tensor:
        return self._products(self.weight.chunk(2)[0])

    def after_phi(self) -> Tensor:
        return self._products(self.weight.chunk(2)[1])

    def _products(self, weight: Tensor) -> Tensor:
        """The linear map (heads, d) from d channels to w . channels of each head."""
        if self.heads == 1:
            return weight.unsqueeze(0)
        return torch.block_diag(*weight.chunk(self.heads))

    def forward(self, maps: Maps) -> Tensor:
        a, b = maps.theta.squeeze(2), maps.phi.squeeze(2)
        return _mean(concatenation, maps.width, a, b, maps.g)

    def multiply_adds(self, maps: Maps) -> int:
        return pairs(maps) * (self.weight.numel() // self.heads + maps.g.shape[2])


class Whitened(Pairwise):
    """The pairwise term of `Disentangled` alone."""

    def forward(self, maps: Maps) -> Tensor:
        return whitened_sum(maps, self.scale / self.temperature, self.heads)


class Unary(Pairwise):
    """The unary term of `Disentangled` alone: one context for all queries."""

    embedded = False
    unary = True

    def forward(self, maps: Maps) -> Tensor:
        assert maps.mask is not None
        return unary_sum(maps, maps.mask).expand(-1, maps.theta.shape[1], -1)

    def multiply_adds(self, maps: Maps) -> int:
        return unary_multiply_adds(maps)


class Disentangled(Pairwise):
    """The sum of a whitened pairwise term and a unary term. Yin et al. 2020, equation 9."""

    unary = True

    def forward(self, maps: Maps) -> Tensor:
        assert maps.mask is not None
        pairwise = whitened_sum(maps, self.scale / self.temperature, self.heads)
        return pairwise + unary_sum(maps, maps.mask)

    def multiply_adds(self, maps: Maps) -> int:
        return super().multiply_adds(maps) + unary_multiply_adds(maps)


def pairs(maps: Maps) -> int:
    """The number of pairs of a query and a key in the whole batch."""
    keys = maps.phi.shape[1]
    if maps.width is not None:
        keys = keys // maps.width + maps.width - 1
    return maps.theta.shape[:2].numel() * keys


def unary_multiply_adds(maps: Maps) -> int:
    """Multiply-adds of a unary term: one sum if all queries have the same keys."""
    return maps.g.numel() if maps.width is None else pairs(maps) * maps.g.shape[2]


PAIRWISE: dict[str, type[Pairwise]] = {
    "gaussian": Gaussian,
    "embedded_gaussian": EmbeddedGaussian,
    "dot_product": DotProduct,
    "concatenation": Concatenation,
    "disentangled": Disentangled,
    "whitened": Whitened,
    "unary": Unary,
}
