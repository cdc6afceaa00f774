"""y_i = sum_j softmax_j(s q_i . k_j) v_j for wide heads, by Triton kernels of linear memory.

The kernels of FlashAttention and cuDNN hold a whole head of a block of queries and keys in shared
memory, which ends at 256 channels. Here a product over the channels of a head reads a tile of them
at a time. The output is summed in registers, at full width. The sums run over blocks of keys with
a running maximum, and the backward pass computes the weights again from the logarithm of their
sums. No two programs add to the same number, so that equal inputs give equal bits.

Products for each pair of positions: 2 forward; 3 for the gradient of q, 3 for that of k and 2 for
that of v, because each gradient has its own pass.
Shapes: queries q (B, N, d), keys k (B, M, d), values v (B, M, e), output (B, N, e).
"""

from math import log

import torch
from torch import Tensor

from nlnet.model.non_local.kernels.softmax_gradient import register_gradient

ROWS = 64  # of the output of a program in float16 and bfloat16, if it has up to 512 channels
ACCUMULATED = 64 * 512  # numbers that a program sums in registers
LAUNCH = {"num_warps": 8, "num_stages": 2}


def split_head(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The equation, for q, k and v of one dtype: float16, bfloat16 or float32."""
    return split_forward(q, k, v, scale / log(2))[0]


@torch.library.custom_op("nlnet::split_softmax", mutates_args=())
def split_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """y, the mean of v_j weighted by 2^(scale q_i . k_j), and log2 of the sum of the weights."""
    from nlnet.model.non_local.kernels.split_head_kernels import attend_kernel

    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    (batch, n, d), (_, m, e) = q.shape, v.shape
    y = v.new_empty(batch, n, e)
    log_sums = v.new_empty(batch, n, dtype=torch.float32)
    width = _width(e)
    tiles = _tiles(width, q.dtype)
    with torch.cuda.device_of(q):  # Triton launches on the current device
        attend_kernel[-(-n // tiles[0]), batch](
            (q, k, v),
            (y, log_sums),
            (n, m),
            scale,
            HEADS=(d, e),
            WIDTH=width,
            TILES=tiles,
            **LAUNCH,
        )
    return y, log_sums


@torch.library.custom_op("nlnet::split_softmax_backward", mutates_args=())
def _split_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_sums: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, by one kernel each."""
    dy, q, k, v = dy.contiguous(), q.contiguous(), k.contiguous(), v.contiguous()
    inner = (dy.float() * y).sum(dim=2)
    statistics = log_sums, inner
    dq = _gradient((q, k, dy, v), statistics, scale, by_query=True)
    dk = _gradient((k, q, v, dy), statistics, scale)
    dv = _gradient((k, q, v, dy), statistics, scale, of_values=True)
    return dq, dk, dv


def _gradient(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    statistics: tuple[Tensor, Tensor],
    scale: float,
    *,
    by_query: bool = False,
    of_values: bool = False,
) -> Tensor:
    from nlnet.model.non_local.kernels.split_head_kernels import gradient_kernel

    (batch, num_rows, d), (_, num_columns, e) = inputs[0].shape, inputs[3].shape
    output = torch.empty_like(inputs[2] if of_values else inputs[0])
    width = _width(output.shape[2])
    tiles = _tiles(width, output.dtype)
    with torch.cuda.device_of(output):
        gradient_kernel[-(-num_rows // tiles[0]), batch](
            inputs,
            output,
            statistics,
            (num_rows, num_columns),
            scale,
            HEADS=(d, e),
            WIDTH=width,
            TILES=tiles,
            OF_VALUES=of_values,
            BY_QUERY=by_query,
            **LAUNCH,
        )
    return output


def _width(channels: int) -> int:
    """The channels of an output in registers: a power of 2 of 16 or more."""
    return max(16, 1 << (channels - 1).bit_length())


def _tiles(width: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Rows of an output, columns and channels of a block.

    The sums take 128 of the 255 registers of 256 threads, and the weighted block of tokens at most
    64 KB of shared memory. Products in float32 need more registers, which leaves half for the sums.
    """
    share = 2 if dtype == torch.float32 else 1
    rows = max(16, min(ROWS, ACCUMULATED // width) // share)
    return rows, 32 // share, 64 // share


@split_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    y = v.new_empty(*q.shape[:2], v.shape[2])
    return y, v.new_empty(q.shape[:2], dtype=torch.float32)


register_gradient(split_forward, _split_backward)
