"""y_i = sum_j softmax_j(s q_i . k_j) v_j, in memory linear in N + M.

There are three forms of the equation: `fused` is a kernel of torch, `chunked` computes the
affinity block by block and again in the backward pass, `direct` keeps the affinity. A CUDA device
has further ones (`CUDA_FORMS`). `softmax_attention` chooses one. None falls back to another.
Shapes: queries q (B, N, d), keys k (B, M, d), values v (B, M, e), output (B, N, e).
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nlnet.model.non_local.kernels.cuda_forms import LARGEST_HEAD, cuda_form
from nlnet.model.non_local.kernels.kept_affinity import kept_affinity
from nlnet.model.non_local.kernels.small_weights import cut_exp2, cut_logits
from nlnet.model.non_local.kernels.split_head import split_head

BLOCK = 1024  # queries, and keys, of a block in the chunked form: 4 MB fit in a CPU's cache
SMALL = 2**22  # numbers of an affinity that a CPU still keeps: 16 MB in float32
NARROW = 2**18  # the same with several heads, whose products are narrow; by measurement
WIDE = 2  # or this many times the numbers in q and k: wide heads are slow to recompute


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, heads: int = 1) -> Tensor:
    """y_i = sum_j softmax_j(scale q_i . k_j) v_j, the (embedded) Gaussian of a non-local block.

    q (B, N, d), k (B, M, d), v (B, M, e) -> (B, N, e), in the dtype of v. Logits and sums are
    computed in float32 or wider, under autocast too. The batch has `heads` parts of each clip,
    which decide about the form alone. Source: Wang et al. 2018, equations 2 to 4; Rabe and Staats
    2021 and Dao et al. 2022 (linear memory).
    """
    dtype = torch.promote_types(q.dtype, v.dtype)
    with torch.autocast(q.device.type, enabled=False):
        q, k, values = q.to(dtype), k.to(dtype), v.to(dtype)
        if q.device.type == "cuda" and not torch.compiler.is_exporting():
            y = CUDA_FORMS[cuda_form(q, k, values)](q, k, values, scale)
        elif affinity_is_small(q, k, heads):
            y = direct(q, k, values, scale)
        elif torch.compiler.is_exporting():
            y = by_rows(q, k, values, scale)
        elif dtype == torch.float64 or (q.device.type == "cpu" and dtype == torch.float32):
            y = chunked(q, k, values, scale)
        else:
            y = fused(q, k, values, scale)
    return y.to(v.dtype)


def affinity_is_small(q: Tensor, k: Tensor, heads: int = 1) -> bool:
    """Whether it is faster to keep the N x M affinity than to compute it again."""
    affinities = q.shape[1] * k.shape[1]
    if q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64):
        if heads > 1:
            return affinities <= min(SMALL, NARROW)
        return affinities <= max(SMALL, WIDE * (q.shape[1] + k.shape[1]) * q.shape[2])
    return affinities <= 64 * 64  # above that, the fused kernels are faster


def direct(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The equation itself, with the affinity (B, N, M) in memory, in float32 or wider."""
    wide = torch.promote_types(q.dtype, torch.float32)
    logits = (q.to(wide) * scale) @ k.to(wide).mT
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        # A constant for each row and -inf for a weight of 0 leave the gradients as they are.
        cut_logits(logits.detach())
    return (torch.softmax(logits, dim=-1) @ v.to(wide)).to(v.dtype)


def by_rows(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`direct` for BLOCK queries at a time: the form of exported networks.

    It consists of operators that other runtimes have. At most (B, BLOCK, M) affinities are needed
    at once; the number of operators grows with N, which is fixed in an exported network.
    """
    return torch.cat([direct(rows, k, v, scale) for rows in q.split(BLOCK, dim=1)], dim=1)


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    backends: Sequence[SDPBackend] = (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
    ),
) -> Tensor:
    """torch's scaled_dot_product_attention, restricted to its kernels of linear memory.

    These kernels need dense last dimensions of one size, a multiple of 8. So zeros are appended,
    which change neither the logits nor the output. If no such kernel supports the call, torch
    raises an error: it does not use the form with the affinity in memory. If several do, torch
    chooses. cuDNN is allowed up to the head size of which it has a backward pass.
    """
    size = -(-max(q.shape[2], v.shape[2]) // 8) * 8
    allowed = [x for x in backends if x != SDPBackend.CUDNN_ATTENTION or size <= LARGEST_HEAD]
    with sdpa_kernel(allowed):
        y = F.scaled_dot_product_attention(
            _widened(q, size), _widened(k, size), _widened(v, size), scale=scale
        )
    return y.squeeze(1)[..., : v.shape[2]]


def _widened(tokens: Tensor, size: int) -> Tensor:  # (B, N, d) -> (B, 1, N, size), one head
    return F.pad(tokens, (0, size - tokens.shape[2])).contiguous().unsqueeze(1)


def chunked(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The affinity block by block, and again in the backward pass.

    At most two blocks are in memory, for any N and M. For the backward pass, the logarithm of the
    sum of each row is kept: N numbers. Any device and dtype. The logits are exponents of 2: on a
    CPU, exp2 takes half the time of exp.
    """
    return chunked_forward(q * (scale / log(2)), k, v)[0]


@torch.library.custom_op("nlnet::chunked_softmax", mutates_args=())
def chunked_forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """y (B, N, e), the mean of v_j weighted by 2^(q_i . k_j), and log2 of the sum of the weights.

    The logits are relative to the largest one so far. If a block has a larger logit, the sums are
    rescaled. The second result is (B, N).
    """
    y = q.new_zeros(*q.shape[:2], v.shape[2])
    log_sums = q.new_empty(q.shape[:2])
    buffer = _block_buffer(q, k)
    for b in range(q.shape[0]):
        for rows in blocks(q.shape[1]):
            queries, sums_of_v = q[b, rows], y[b, rows]
            peak = queries.new_full((len(queries), 1), -torch.inf)
            sums = torch.zeros_like(peak)
            for columns in blocks(k.shape[1]):
                keys = k[b, columns]
                logits = buffer[: len(queries) * len(keys)].view(len(queries), len(keys))
                torch.mm(queries, keys.mT, out=logits)
                higher = torch.maximum(peak, logits.amax(dim=1, keepdim=True))
                shrink = cut_exp2(peak - higher)
                peak = higher
                cut_exp2(logits.sub_(peak))
                sums.mul_(shrink).add_(logits.sum(dim=1, keepdim=True))
                sums_of_v.mul_(shrink).addmm_(logits, v[b, columns])
            sums_of_v.div_(sums)
            log_sums[b, rows] = (sums.log2_() + peak).squeeze(1)
    return y, log_sums


@torch.library.custom_op("nlnet::chunked_softmax_backward", mutates_args=())
def _chunked_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v.

    Let P be the weights divided by their sum, D = dy v^T, and S the logits. Then dv = P^T dy,
    dS = ln 2 P (D - rowsum(dy y)), dq = dS k, dk = dS^T q.
    """
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    inner = (dy * y).sum(dim=2)  # (B, N)
    buffers = _block_buffer(q, k), _block_buffer(q, k)
    for b in range(q.shape[0]):
        for columns in blocks(k.shape[1]):
            keys, values = k[b, columns], v[b, columns]
            for rows in blocks(q.shape[1]):
                queries, dy_rows = q[b, rows], dy[b, rows]
                size = len(queries) * len(keys)
                weights, dlogits = (x[:size].view(len(queries), len(keys)) for x in buffers)
                torch.addmm(log_sums[b, rows, None], queries, keys.mT, beta=-1, out=weights)
                cut_exp2(weights)
                dv[b, columns].addmm_(weights.mT, dy_rows)
                torch.addmm(inner[b, rows, None], dy_rows, values.mT, beta=-1, out=dlogits)
                dlogits.mul_(weights)
                dq[b, rows].addmm_(dlogits, keys, alpha=log(2))
                dk[b, columns].addmm_(dlogits.mT, queries, alpha=log(2))
    return dq, dk, dv


def blocks(length: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]


def _block_buffer(q: Tensor, k: Tensor) -> Tensor:
    return q.new_empty(min(BLOCK, q.shape[1]) * min(BLOCK, k.shape[1]))


@chunked_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(q.shape[:2])


@_chunked_backward.register_fake
def _(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, log_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(dy.device.type, enabled=False):
        return _chunked_backward(dy, *ctx.saved_tensors)


chunked_forward.register_autograd(_backward, setup_context=_save)

CUDA_FORMS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "kept": kept_affinity,
    "fused": fused,
    "flash": partial(fused, backends=(SDPBackend.FLASH_ATTENTION,)),
    "efficient": partial(fused, backends=(SDPBackend.EFFICIENT_ATTENTION,)),
    "cudnn": partial(fused, backends=(SDPBackend.CUDNN_ATTENTION,)),
    "split": split_head,
    "chunked": chunked,
}
