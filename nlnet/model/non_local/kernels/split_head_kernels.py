"""Triton kernels of a softmax with wide heads; `split_head.py` explains them.

A program computes ROWS rows of an output, of all its channels, and reads blocks of COLUMNS tokens
of the other side. A product over the channels of a head reads DEPTH channels at a time, so that
shared memory never holds a whole head. `HEADS` are the channels of q and v, `WIDTH` is a power of 2
that holds the channels of the output, `TILES` is (ROWS, COLUMNS, DEPTH).
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl
from triton.errors import TritonError

__all__ = ["TritonError", "attend_kernel", "gradient_kernel"]

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _multiply_add(a, b, total):
    """total + a b, in float32."""
    if INTERPRETED:  # the interpreter multiplies the bit patterns of bfloat16
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="tf32x3")


@triton.jit
def _products(a, b, rows, columns, num_rows, num_columns, SIZE: tl.constexpr, DEPTH: tl.constexpr):
    """a_r . b_c of tokens a (num_rows, SIZE) and b (num_columns, SIZE), in float32."""
    products = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, SIZE, DEPTH):
        channels = start + tl.arange(0, DEPTH)
        inside = channels < SIZE
        left = tl.load(
            a + rows[:, None] * SIZE + channels[None, :],
            mask=(rows[:, None] < num_rows) & inside[None, :],
            other=0.0,
        )
        right = tl.load(
            b + columns[None, :] * SIZE + channels[:, None],
            mask=(columns[None, :] < num_columns) & inside[:, None],
            other=0.0,
        )
        products = _multiply_add(left, right, products)
    return products


@triton.jit
def _add_weighted(total, weights, tokens, columns, num_columns, SIZE: tl.constexpr):
    """total + weights tokens, for a block of the tokens (num_columns, SIZE)."""
    channels = tl.arange(0, total.shape[1])
    block = tl.load(
        tokens + columns[:, None] * SIZE + channels[None, :],
        mask=(columns[:, None] < num_columns) & (channels[None, :] < SIZE),
        other=0.0,
    )
    return _multiply_add(weights.to(block.dtype), block, total)


@triton.jit
def _store(output, total, rows, num_rows, SIZE: tl.constexpr):
    channels = tl.arange(0, total.shape[1])
    tl.store(
        output + rows[:, None] * SIZE + channels[None, :],
        total.to(output.dtype.element_ty),
        mask=(rows[:, None] < num_rows) & (channels[None, :] < SIZE),
    )


@triton.jit
def attend_kernel(
    inputs,
    outputs,
    lengths,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILES: tl.constexpr,
):
    """y and log_sums of (q, k, v): weights 2^(scale q_i . k_j), the logarithm of their sum."""
    D: tl.constexpr = HEADS[0]
    E: tl.constexpr = HEADS[1]
    n, m = lengths
    clip = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * TILES[0] + tl.arange(0, TILES[0])
    q = inputs[0] + clip * n * D
    k = inputs[1] + clip * m * D
    v = inputs[2] + clip * m * E
    peak = tl.full((TILES[0],), float("-inf"), tl.float32)
    sums = tl.zeros((TILES[0],), tl.float32)
    total = tl.zeros((TILES[0], WIDTH), tl.float32)
    for start in range(0, m, TILES[1]):
        columns = start + tl.arange(0, TILES[1])
        logits = _products(q, k, rows, columns, n, m, D, TILES[2]) * scale
        logits = tl.where(columns[None, :] < m, logits, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, axis=1))
        weights = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(peak - higher)
        peak = higher
        sums = sums * shrink + tl.sum(weights, axis=1)
        total = _add_weighted(total * shrink[:, None], weights, v, columns, m, E)
    _store(outputs[0] + clip * n * E, total / sums[:, None], rows, n, E)
    tl.store(outputs[1] + clip * n + rows, peak + tl.log2(sums), mask=rows < n)


@triton.jit
def gradient_kernel(
    inputs,
    output,
    statistics,
    lengths,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    TILES: tl.constexpr,
    OF_VALUES: tl.constexpr,
    BY_QUERY: tl.constexpr,
):
    """One gradient, of the R tokens of its own side, from all C tokens of the other side.

    inputs are a (R, D), b (C, D), f (R, E) and h (C, E): q, k, dy and v for the gradient of q,
    whose rows are queries (BY_QUERY); k, q, v and dy for the others. statistics are log_sums and
    rowsum(dy y) of the queries. The weights are P = 2^(scale a . b - log_sums). The gradient of v
    is sum_c P h; the others are ln 2 scale sum_c P (f . h - rowsum) b.
    """
    D: tl.constexpr = HEADS[0]
    E: tl.constexpr = HEADS[1]
    num_rows, num_columns = lengths
    clip = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * TILES[0] + tl.arange(0, TILES[0])
    a = inputs[0] + clip * num_rows * D
    b = inputs[1] + clip * num_columns * D
    f = inputs[2] + clip * num_rows * E
    h = inputs[3] + clip * num_columns * E
    num_queries = num_rows if BY_QUERY else num_columns
    log_sums = statistics[0] + clip * num_queries
    inner = statistics[1] + clip * num_queries
    total = tl.zeros((TILES[0], WIDTH), tl.float32)
    for start in range(0, num_columns, TILES[1]):
        columns = start + tl.arange(0, TILES[1])
        queries = rows[:, None] if BY_QUERY else columns[None, :]
        weights = _products(a, b, rows, columns, num_rows, num_columns, D, TILES[2]) * scale
        weights -= tl.load(log_sums + queries, mask=queries < num_queries, other=0.0)
        weights = tl.where(columns[None, :] < num_columns, tl.exp2(weights), 0.0)
        if OF_VALUES:
            total = _add_weighted(total, weights, h, columns, num_columns, E)
        else:
            slopes = _products(f, h, rows, columns, num_rows, num_columns, E, TILES[2])
            slopes -= tl.load(inner + queries, mask=queries < num_queries, other=0.0)
            total = _add_weighted(total, weights * slopes, b, columns, num_columns, D)
    if OF_VALUES:
        _store(output + clip * num_rows * E, total, rows, num_rows, E)
    else:
        _store(
            output + clip * num_rows * D, total * (scale * 0.6931471805599453), rows, num_rows, D
        )
