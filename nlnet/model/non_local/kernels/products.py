"""Matrix products whose sums are computed and kept in float32."""

from typing import Any

import torch
from torch import Tensor


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a (B, N, K) b (B, K, M) -> (B, N, M), in float32 or wider; without a derivative.

    On CUDA, factors in float16 and bfloat16 are not copied to float32 first: tensor cores multiply
    them exactly and add in float32.
    """
    wide = torch.promote_types(a.dtype, torch.float32)
    if a.is_cuda and a.dtype != wide:
        return torch.bmm(a, b, out_dtype=wide)
    return a.to(wide) @ b.to(wide)


@torch.library.custom_op("nlnet::mean_product", mutates_args=())
def mean_product(a: Tensor, b: Tensor) -> Tensor:
    """1/M sum_j a_j^T b_j in float32 or wider.

    a (B, M, d), b (B, M, e) of one dtype -> (B, d, e).
    """
    return wide_product(a.mT, b).div_(a.shape[1])


@mean_product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    wide = torch.promote_types(a.dtype, torch.float32)
    return a.new_empty(a.shape[0], a.shape[2], b.shape[2], dtype=wide)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    """da = b dy^T / M and db = a dy / M; dy / M itself could be too small for float16."""
    a, b = ctx.saved_tensors
    with torch.autocast(dy.device.type, enabled=False):
        dy = dy.to(a.dtype)
        da, db = wide_product(b, dy.mT), wide_product(a, dy)
        return da.div_(a.shape[1]).to(a.dtype), db.div_(a.shape[1]).to(b.dtype)


mean_product.register_autograd(_backward, setup_context=_save)
