"""The weights with which chosen queries of a block sum its values; never the N x M matrix.

A block computes y_i = sum_j w_ij v_j. `attention_rows` returns w_i, a row of f / C(x), for chosen
positions i. Positions (t, y, x) are those of the map that enters the block: (0, y, x) in an image,
(l, 0, 0) in a sequence. Keys can be pooled, so a row has its own sizes T', H', W'.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.errors import ArgumentError
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.compact_generalized import CompactGeneralizedBlock
from nlnet.model.non_local.double_attention import DoubleAttentionBlock
from nlnet.model.non_local.global_context import GlobalContextBlock, SimplifiedNonLocalBlock
from nlnet.model.non_local.group_rows import (
    GroupRows,
    Terms,
    double_attention_rows,
    pairwise_rows,
    unary_rows,
)
from nlnet.model.non_local.pairwise import Concatenation, DotProduct, Maps, Unary
from nlnet.model.non_local.tokens import lift, to_map, to_tokens

Position = tuple[int, int, int]  # (t, y, x)
BLOCK_TYPES = (
    NonLocalBlock,
    SimplifiedNonLocalBlock,
    GlobalContextBlock,
    DoubleAttentionBlock,
    CompactGeneralizedBlock,
)
CANDIDATES = 128  # queries whose rows are in memory at once


@dataclass(frozen=True)
class Rows:
    """The weights of Q queries over the keys.

    A position outside the query's group of frames, frame or track has the weight 0. The terms of a
    disentangled block are apart; their sum is the weight of a value.
    """

    terms: Terms  # pairwise, unary -> (Q, T', H', W')
    kernel: Position  # positions of the map, (t, h, w), that one key covers
    softmax: bool  # the weights of a term are >= 0 and have the sum 1
    shared: bool  # all queries of a group have the same row

    def total(self) -> Tensor:
        """The sum of the terms, (Q, T', H', W')."""
        return torch.stack(list(self.terms.values())).sum(dim=0)


def attention_rows(
    block: nn.Module, x: Tensor, queries: Sequence[Position], head: int | None = None
) -> Rows:
    """The rows of chosen queries of any block of the family.

    With axes=criss_cross, the two rounds of attention are composed: a row is over all positions of
    the query's group of frames. If the second round pools its values by their maximum, each
    channel takes another position of a window; the row is then the mean over the channels.

    Args:
        block: a block of the family
        x: the map that enters it, of one clip, (1, C, T, H, W), or of one image or sequence
        queries: Q positions of the map
        head: one head of a NonLocalBlock; None is the mean of the rows of all heads

    Raises:
        ArgumentError: the block has no rows (compact_generalized) or no such head, x holds several
            clips, or a query is outside the map.
    """
    sizes = tuple(lift(x).shape[2:])
    for query in queries:
        if not all(0 <= i < size for i, size in zip(query, sizes, strict=True)):
            raise ArgumentError(f"queries={query} is outside the map of {sizes} positions")
    return _prepare(block, x, head)(queries)


def effective_positions(weights: Tensor) -> Tensor:
    """How many positions a row attends to, the exponential of its entropy: (Q, ...) -> (Q,).

    It is 1 if all weight is at one position, and n if n positions have the same weight. Rows with
    signs are measured by their absolute values.
    """
    shares = weights.flatten(1).abs()
    shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
    return torch.special.entr(shares).sum(dim=1).exp()


def most_concentrated_query(block: nn.Module, x: Tensor) -> Position:
    """The position of the map whose row has the fewest `effective_positions`.

    If all queries have the same row, it is the first position. Raises ArgumentError as
    `attention_rows` does.
    """
    rows = _prepare(block, x)
    everywhere = _positions(x)
    best, fewest = everywhere[0], float("inf")
    if rows(everywhere[:1]).shared:
        return best
    for start in range(0, len(everywhere), CANDIDATES):
        candidates = everywhere[start : start + CANDIDATES]
        count, i = effective_positions(rows(candidates).total()).min(dim=0)
        if count < fewest:
            best, fewest = candidates[int(i)], float(count)
    return best


def mean_row(block: nn.Module, x: Tensor) -> Rows:
    """The mean of the rows of all positions: how much each key is attended to. Q is 1.

    It holds CANDIDATES rows at a time. Raises ArgumentError as `attention_rows` does.
    """
    rows = _prepare(block, x)
    everywhere = _positions(x)
    sums: Terms = {}
    for start in range(0, len(everywhere), CANDIDATES):
        some = rows(everywhere[start : start + CANDIDATES])
        for name, weights in some.terms.items():
            share = weights.sum(dim=0, keepdim=True) / len(everywhere)
            sums[name] = sums[name] + share if name in sums else share
    return Rows(sums, some.kernel, some.softmax, shared=True)


def _positions(x: Tensor) -> list[Position]:
    """All positions of a map, in order."""
    t, h, w = lift(x).shape[2:]
    return [(k, i, j) for k in range(t) for i in range(h) for j in range(w)]


@torch.no_grad()
def _prepare(
    block: nn.Module, x: Tensor, head: int | None = None
) -> Callable[[Sequence[Position]], Rows]:
    """Embed all positions once; the result computes the rows of any queries."""
    if x.shape[0] != 1:
        raise ArgumentError(f"x has {x.shape[0]} clips; give one")
    x = lift(x)
    tokens = to_tokens(x.to(torch.promote_types(x.dtype, torch.float32)))
    kernel: Position = (1, 1, 1)
    softmax, shared = True, False
    rows: Callable[[Tensor], Terms]
    match block:
        case NonLocalBlock():
            rows, like, kernel = _non_local_rows(block, tokens, head)
            softmax = not isinstance(block.pairwise, DotProduct | Concatenation)
            shared = isinstance(block.pairwise, Unary)
        case SimplifiedNonLocalBlock() | GlobalContextBlock():
            logits = torch.zeros_like(tokens[..., :1])  # of a mean
            like, shared = logits if block.mask is None else block.mask(tokens), True
            rows = GroupRows(block.axes, block.group_frames, unary_rows, like, like, like)
        case DoubleAttentionBlock():
            like, distribute = block.theta(tokens), block.rho(tokens)
            rows = GroupRows(
                block.axes, block.group_frames, double_attention_rows, distribute, like
            )
        case _:
            raise ArgumentError(
                f"block={type(block).__name__} has no weights between positions, because it "
                "relates positions and channels at once; use Grad-CAM"
            )

    @torch.no_grad()
    def rows_of(queries: Sequence[Position]) -> Rows:
        t, i, j = torch.tensor(list(queries), device=x.device).unbind(1)
        terms = rows((t * x.shape[3] + i) * x.shape[4] + j)
        maps = {name: weights.unflatten(1, like.shape[1:4]) for name, weights in terms.items()}
        return Rows(maps, kernel, softmax, shared)

    return rows_of


def _non_local_rows(
    block: NonLocalBlock, tokens: Tensor, head: int | None
) -> tuple[Callable[[Tensor], Terms], Tensor, Position]:
    """The rows of a NonLocalBlock, a map with the sizes of the rows, and the kernel of a key."""
    if block.recurrence > 1:
        raise ArgumentError(f"recurrence={block.recurrence}: a block that is repeated has no rows")
    if head is not None and not 0 <= head < block.heads:
        raise ArgumentError(f"head={head} is none of the {block.heads} heads, which count from 0")
    theta = block.queries(tokens)
    keys = []
    for axes in block.passes:
        phi, _, *mask = block.keys_along(axes, tokens)
        keys.append((phi, *mask))
    pools = block.subsample.where != "none" and block.passes[-1].subsamples
    t, h, w = block.pooling_kernel(tokens) if pools else (1, 1, 1)
    composed = len(block.passes) == 2
    first_values = None
    if composed and pools:
        first_values = block.attend_along(block.passes[0], theta, tokens)

    def rows_of(head: int) -> Callable[[Tensor], Terms]:
        function = partial(_head_rows, block, head)
        rounds = [
            GroupRows(axes, block.group_frames, function, theta, *maps)
            for axes, maps in zip(block.passes, keys, strict=True)
        ]
        if not composed:
            return rounds[0]
        first, second = rounds
        shares = None
        if first_values is not None:
            shares = _channel_shares(first_values.chunk(block.heads, dim=4)[head], (t, h, w))
        positions = tokens.shape[2] * tokens.shape[3]  # of a frame
        return partial(_composed, first, second, shares, positions)

    chosen = range(block.heads) if head is None else [head]
    rows = partial(_mean, [rows_of(k) for k in chosen])
    return (rows, tokens, (1, 1, 1)) if composed else (rows, phi, (t, h, w))


def _head_rows(block: NonLocalBlock, head: int, maps: Maps, queries: Tensor) -> Terms:
    """The rows of one head; the maps are those of all heads of one group."""
    maps, mean = block.by_head(maps)
    logits_of_terms = block.unary_logits(maps, mean)
    one = slice(head, head + 1)
    mask = None if maps.mask is None else maps.mask[one]
    maps = Maps(maps.theta[one], maps.phi[one], maps.g[one], mask, maps.width)
    own = maps if block.pairwise.unary else maps._replace(mask=None)
    terms = pairwise_rows(block.pairwise, own, queries)
    for logits in logits_of_terms:
        row = unary_rows(maps._replace(mask=logits[one]), queries)["unary"]
        terms["unary"] = terms["unary"] + row if "unary" in terms else row
    return terms


def _mean(heads: Sequence[Callable[[Tensor], Terms]], numbers: Tensor) -> Terms:
    """The mean of the rows of some heads."""
    first, *rest = (rows(numbers) for rows in heads)
    if not rest:
        return first
    return {
        name: sum((terms[name] for terms in rest), start=weights) / len(heads)
        for name, weights in first.items()
    }


def _composed(
    first: GroupRows, second: GroupRows, shares: Tensor | None, positions: int, numbers: Tensor
) -> Terms:
    """The rows of two rounds, with `shares` of the values if the second round pools them."""
    terms = second(numbers)
    if shares is not None:
        terms = {name: weights @ shares for name, weights in terms.items()}
    return _compose(terms, first, positions)


def _compose(terms: Terms, first: GroupRows, positions: int) -> Terms:
    """Rows over the outputs of the first round -> rows over its values.

    It computes the rows of the first round for one frame of H W = `positions` at a time.
    """
    composed = {name: torch.zeros_like(weights) for name, weights in terms.items()}
    device = first.places.device
    for frame in torch.arange(len(first.places), device=device).split(positions):
        if any(bool(weights[:, frame].any()) for weights in terms.values()):
            before = torch.stack(list(first(frame).values())).sum(dim=0)  # (H W, T H W)
            for name, weights in terms.items():
                composed[name] += weights[:, frame] @ before
    return composed


def _channel_shares(values: Tensor, kernel: Position) -> Tensor:
    """The share of the channels whose maximum in a window is at a position: sparse (M, N)."""
    at = F.max_pool3d(to_map(values), kernel, return_indices=True)[1].flatten(2)[0]  # (C, M)
    windows = torch.arange(at.shape[1], device=at.device).expand_as(at)
    share = values.new_full((at.numel(),), 1 / len(at))
    size = at.shape[1], prod(values.shape[1:4])
    pairs = torch.stack([windows.flatten(), at.flatten()])
    return torch.sparse_coo_tensor(pairs, share, size, check_invariants=True).coalesce()
