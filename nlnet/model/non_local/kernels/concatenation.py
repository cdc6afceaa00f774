"""y_i = 1/M sum_j ReLU(a_i + b_j) g_j by sorting: no affinity, O((N + M)(log M + e)).

The sum is a piecewise linear function of a_i with knots at -b_j. If b is sorted in descending
order, the active terms of query i are the first c_i = #{j: b_j > -a_i}. The sorted keys are split
into blocks of ROWS. A query reads the block that can contain its last active term, and two sums
over all blocks before it, whose terms are all active. With p the last key of those blocks (Abel's
summation):

    sum_j ReLU(a_i + b_j) g_j = sum_{l in block} ReLU(a_i + b_l) g_l + (a_i + b_p) S + R
    S = sum_{l <= p} g_l,   R = sum_{l <= p} (b_l - b_p) g_l = sum_{l < p} S_l (b_l - b_(l+1)).

No factor of a g or an S is negative. So nothing cancels if a and b have a large constant of
opposite signs.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nlnet.model.non_local.kernels.cuda_forms import KEPT

ROWS = 8  # keys of a block; the fastest size by measurement
CHUNK = 2048  # number of queries whose slopes are in memory at once, on a CPU
CUDA_CHUNK = 16384  # the same on CUDA, where each chunk costs the launches of ten kernels
SMALL = 2**26  # multiply-adds N M e up to which the direct sum is faster


def concatenation(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """y_i = 1/M sum_j ReLU(a_i + b_j) g_j.

    a (B, N), b (B, M), g (B, M, e) -> (B, N, e), in g's dtype, computed in float32 or wider. With
    a = w_theta . theta and b = w_phi . phi this is the concatenation form ReLU(w . [theta_i,
    phi_j]). Source: Wang et al. 2018, equation 6 with C(x) = M.
    """
    wide = torch.promote_types(g.dtype, torch.float32)
    with torch.autocast(g.device.type, enabled=False):
        a, b, values = a.to(wide), b.to(wide), g.to(wide)
        if _is_small(a, values):
            y = _direct_sum(a, b, values)
        elif torch.compiler.is_exporting():
            # In operators that other runtimes have, with (B, CHUNK, M) terms at once.
            y = torch.cat([_direct_sum(rows, b, values) for rows in a.split(CHUNK, dim=1)], dim=1)
        else:
            y = sorted_sum(a, b, values)[0]
    return y.to(g.dtype)


def _is_small(a: Tensor, g: Tensor) -> bool:
    """Whether it is faster to keep the N x M terms than to sort.

    On CUDA, they are kept where they are at most KEPT times as many as the numbers of the tokens.
    """
    n, (m, e) = a.shape[1], g.shape[1:]
    return n * m * e <= SMALL or (g.is_cuda and n * m <= KEPT * (n + m) * e)


def _direct_sum(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """The equation, with all terms ReLU(a_i + b_j), (B, N, M), in memory."""
    return F.relu(a.unsqueeze(2) + b.unsqueeze(1)) @ (g / b.shape[1])


@torch.library.custom_op("nlnet::sorted_sum", mutates_args=())
def sorted_sum(a: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y_i = 1/M sum_j ReLU(a_i + b_j) g_j; terms, heights and order for the backward pass."""
    terms, heights, order = _sorted_blocks(b, g)
    blocks, factors = _active_blocks(heights, a, b.shape[1])
    return _weighted_sum(terms, blocks, factors), terms, heights, order


@torch.library.custom_op("nlnet::sorted_sum_backward", mutates_args=())
def _sorted_sum_backward(
    dy: Tensor, a: Tensor, terms: Tensor, heights: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and g.

    da_i = S(a_i) . dy_i with the slope S(a) = 1/M sum_j [a + b_j > 0] g_j. db and dg are those
    gradients with (a, dy) and (b, g) exchanged.
    """
    num_keys = order.shape[1]
    chunk = CUDA_CHUNK if a.is_cuda else CHUNK
    blocks, factors = _active_blocks(heights, a, num_keys)
    da = _slopes_times(dy.split(chunk, dim=1), terms, blocks, factors)

    keys = heights[:, :, :ROWS].flatten(1)  # b, sorted, then -inf
    swapped_terms, swapped_heights, _ = _sorted_blocks(a, dy)
    blocks, factors = _active_blocks(swapped_heights, keys, num_keys)
    values = terms[:, :, :ROWS].split(chunk // ROWS, dim=1)  # g, sorted
    db = _slopes_times((rows.flatten(1, 2) for rows in values), swapped_terms, blocks, factors)
    db = torch.empty_like(order, dtype=db.dtype).scatter_(1, order, db[:, :num_keys])

    place = torch.empty_like(order)  # of each key among the sorted ones
    place.scatter_(1, order, torch.arange(num_keys, device=order.device).expand_as(order))
    blocks = blocks.gather(1, place)
    factors = factors.gather(1, place.unsqueeze(2).expand(-1, -1, factors.shape[2]))
    return da, db, _weighted_sum(swapped_terms, blocks, factors)


def _sorted_blocks(b: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The keys in descending order, in K = M // ROWS + 1 blocks; the last one is not full.

    terms (B, K, ROWS + 2, e): the g_l of a block, then S and R of all blocks before it. heights
    (B, K, ROWS + 2): the b_l, then b_p for S and 0 for R; -inf if there is no term. order (B, M):
    the indices of the sorted keys.
    """
    batch, m = b.shape
    knots, order = b.sort(dim=1, descending=True)
    num = m // ROWS + 1
    full = slice(0, num - 1)  # blocks
    heights = F.pad(knots, (0, num * ROWS - m), value=-torch.inf).unflatten(1, (num, ROWS))
    last = F.pad(heights[:, full, -1], (1, 0), value=-torch.inf)  # b_p of each block
    heights = torch.cat([heights, last.unsqueeze(2), torch.zeros_like(last).unsqueeze(2)], dim=2)

    rows = F.pad(order, (0, num * ROWS - m)).unflatten(1, (num, ROWS))
    rows = F.pad(rows, (0, 2)) + m * torch.arange(batch, device=b.device).view(-1, 1, 1)
    terms = g.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, -1)
    inside, ends = heights[:, full, :ROWS], heights[:, full, ROWS - 1 : ROWS]
    each = torch.arange(num - 1, device=b.device).expand(batch, -1)
    slopes = torch.cumsum(_weighted_sum(terms, each, torch.ones_like(inside)), dim=1)
    offsets = _weighted_sum(terms, each, inside - ends)  # (B, K - 1, e), each block's term of R
    drops = last[:, 1:-1] - last[:, 2:]
    offsets[:, 1:].addcmul_(slopes[:, :-1], drops.unsqueeze(2))
    terms[:, 0, ROWS:] = 0
    terms[:, 1:, ROWS] = slopes
    terms[:, 1:, ROWS + 1] = torch.cumsum(offsets, dim=1)
    return terms, heights, order


def _active_blocks(heights: Tensor, a: Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
    """The block of each query (B, N), and the factors of its terms (B, N, ROWS + 2).

    The factors include the 1/M of the mean, because there are fewer factors than values.
    """
    knots = heights[:, :, :ROWS].flatten(1)
    blocks = torch.searchsorted(-knots, a.contiguous()) // ROWS  # c_i, knots with -b_j < a_i
    width = heights.shape[2]
    chosen = heights.gather(1, blocks.unsqueeze(2).expand(-1, -1, width))
    factors = F.relu(a.unsqueeze(2) + chosen).div_(num_keys)
    factors[:, :, -1] = 1 / num_keys
    return blocks, factors


def _slopes_of(factors: Tensor) -> Tensor:
    """The derivative of the factors with respect to a."""
    slopes = (factors > 0) * factors[:, :, -1:]
    slopes[:, :, -1] = 0
    return slopes


def _slopes_times(
    values: Iterable[Tensor], terms: Tensor, blocks: Tensor, factors: Tensor
) -> Tensor:
    """The slopes of the weighted sums, times the values, summed over e: (B, N).

    The values are chunks (B, CHUNK, e), or CUDA_CHUNK. To allocate the slopes of all queries at
    once takes longer than to compute them.
    """
    chunk = CUDA_CHUNK if blocks.is_cuda else CHUNK
    chunks = zip(
        values,
        blocks.split(chunk, dim=1),
        _slopes_of(factors).split(chunk, dim=1),
        strict=True,
    )
    products = [_weighted_sum(terms, rows, by).mul_(rest).sum(dim=2) for rest, rows, by in chunks]
    return torch.cat(products, dim=1)


def _weighted_sum(terms: Tensor, blocks: Tensor, factors: Tensor) -> Tensor:
    """sum_l factors_il terms_l over the terms of the block of query i: (B, N, e).

    If there are fewer factors than terms, only the first terms are summed.
    """
    batch, num, width, _ = terms.shape
    first = blocks + num * torch.arange(batch, device=blocks.device).unsqueeze(1)
    rows = (first * width).unsqueeze(2) + torch.arange(factors.shape[2], device=blocks.device)
    table = terms.flatten(0, 2)
    y = F.embedding_bag(
        rows.flatten(0, 1), table, per_sample_weights=factors.flatten(0, 1), mode="sum"
    )
    return y.unflatten(0, (batch, -1))


@sorted_sum.register_fake
def _(a: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num, e = b.shape[1] // ROWS + 1, g.shape[2]
    y = g.new_empty(*a.shape, e)
    terms = g.new_empty(b.shape[0], num, ROWS + 2, e)
    return y, terms, terms.new_empty(terms.shape[:3]), torch.empty_like(b, dtype=torch.long)


@_sorted_sum_backward.register_fake
def _(
    dy: Tensor, a: Tensor, terms: Tensor, heights: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    shape = order.shape
    return torch.empty_like(a), a.new_empty(shape), a.new_empty(*shape, dy.shape[2])


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], *output[1:])


def _backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return None, None, None
    with torch.autocast(dy.device.type, enabled=False):
        return _sorted_sum_backward(dy, *ctx.saved_tensors)


sorted_sum.register_autograd(_backward, setup_context=_save)
