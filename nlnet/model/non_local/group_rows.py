"""Rows of the N x M matrix f / C(x) for chosen queries, in each group of positions.

Shapes: maps of tokens (1, T, H, W, any), rows (Q, T' H' W') over all keys of the map. A key outside
the group of a query has the weight 0.
"""

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nlnet.errors import ArgumentError
from nlnet.model.non_local.axes import Pass
from nlnet.model.non_local.pairwise import (
    Concatenation,
    Disentangled,
    DotProduct,
    EmbeddedGaussian,
    Gaussian,
    Maps,
    Pairwise,
    Unary,
    Whitened,
)

Terms = dict[str, Tensor]  # pairwise, unary -> rows
# The maps of one group, with a batch of 1, and Q of its queries -> rows (Q, M).
RowFunction = Callable[[Maps, Tensor], Terms]


def pairwise_rows(pairwise: Pairwise, maps: Maps, queries: Tensor) -> Terms:
    """The rows of a pairwise function, divided by C(x).

    The terms of a disentangled function are apart. Raises ArgumentError for a function that this
    file does not know.
    """
    theta, phi = maps.theta[0, queries], maps.phi[0]
    is_key = _keys_of(maps, queries)  # (Q, M)
    count = is_key.sum(dim=1, keepdim=True)
    match pairwise:
        case Gaussian() | EmbeddedGaussian():
            return {"pairwise": _softmax(pairwise.scale * theta @ phi.mT, is_key)}
        case DotProduct():
            return {"pairwise": theta @ phi.mT / count * is_key}
        case Concatenation():  # theta and phi are already w_theta . theta and w_phi . phi
            return {"pairwise": F.relu(theta + phi.mT) / count * is_key}
        case Unary():
            return unary_rows(maps, queries)
        case Whitened() | Disentangled():
            scale = pairwise.scale / pairwise.temperature
            centered = theta - maps.theta[0].mean(dim=0)
            rows = {"pairwise": _softmax(scale * centered @ phi.mT, is_key)}
            return rows if maps.mask is None else rows | unary_rows(maps, queries)
    raise ArgumentError(f"pairwise={type(pairwise).__name__} has no rows")


def unary_rows(maps: Maps, queries: Tensor) -> Terms:
    """softmax_j(m_j) for every query."""
    assert maps.mask is not None
    return {"unary": _softmax(maps.mask.expand(len(queries), -1), _keys_of(maps, queries))}


def _softmax(logits: Tensor, is_key: Tensor) -> Tensor:
    return torch.softmax(logits.masked_fill(~is_key, -torch.inf), dim=1)


def _keys_of(maps: Maps, queries: Tensor) -> Tensor:
    """Which keys a query attends to, (Q, M): all, or those of its row and its column."""
    places = torch.arange(maps.phi.shape[1], device=queries.device)
    if maps.width is None:
        return torch.ones_like(places, dtype=torch.bool).expand(len(queries), -1)
    row, column = queries // maps.width, queries % maps.width
    same_row = row.unsqueeze(1) == places // maps.width
    return same_row | (column.unsqueeze(1) == places % maps.width)


def double_attention_rows(maps: Maps, queries: Tensor) -> Terms:
    """sum_n softmax_n(v_in) softmax_j(b_jn), where theta is v and phi is b."""
    shares = torch.softmax(maps.theta[0, queries], dim=1)
    return {"pairwise": shares @ torch.softmax(maps.phi[0], dim=0).mT}


class GroupRows:
    """The rows of one round of attention: (Q,) numbers of positions -> (Q, T' H' W') each term.

    `theta` has the positions of the queries, `phi` and the mask those of the keys. The numbers of
    the positions are folded as the tokens are. This tells the group of each query, its place in
    the group, and which positions of the map the keys of the group are.
    """

    def __init__(
        self,
        axes: Pass,
        group_frames: int | None,
        function: RowFunction,
        theta: Tensor,
        phi: Tensor,
        *mask: Tensor,
    ) -> None:
        groups = axes.groups(theta.shape[1], group_frames)
        self.width = theta.shape[3] if axes.row_column else None
        self.function = function
        self.keys = axes.fold(_position_numbers(phi), groups).squeeze(2)  # (groups, M)
        order = axes.fold(_position_numbers(theta), groups).squeeze(2)  # (groups, N)
        self.group_size = order.shape[1]
        self.places = order.flatten().argsort()  # number -> place among the folded tokens
        self.theta, self.phi = axes.fold(theta, groups), axes.fold(phi, groups)
        self.mask = axes.fold(mask[0], groups).squeeze(2) if mask else None

    def __call__(self, numbers: Tensor) -> Terms:
        places = self.places[numbers]
        group, inside = places // self.group_size, places % self.group_size
        terms: Terms = {}
        for k in group.unique().tolist():
            chosen = (group == k).nonzero().squeeze(1)
            theta, phi = self.theta[k : k + 1], self.phi[k : k + 1]
            mask = None if self.mask is None else self.mask[k : k + 1]
            rows = self.function(Maps(theta, phi, phi, mask, self.width), inside[chosen])
            for name, weights in rows.items():
                if name not in terms:
                    terms[name] = weights.new_zeros(len(numbers), self.keys.numel())
                terms[name][chosen.unsqueeze(1), self.keys[k]] = weights
        return terms


def _position_numbers(tokens: Tensor) -> Tensor:
    """The number of each position, (1, T, H, W, 1)."""
    sizes = tokens.shape[1:4]
    return torch.arange(prod(sizes), device=tokens.device).view(1, *sizes, 1)
