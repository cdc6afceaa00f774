"""Sums over the row and the column of each position, its own position once.

The positions of a frame are N = H W tokens, in rows of `width` W. Each query has H + W - 1 keys, so
the affinities are N (H + W) numbers, not N^2. Source: Huang et al. 2019, CCNet: Criss-Cross
Attention for Semantic Segmentation, section 3.2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nlnet.model.non_local.kernels.small_weights import cut_logits


def row_column_softmax(q: Tensor, k: Tensor, v: Tensor, scale: float, width: int) -> Tensor:
    """y_i = sum_j softmax_j(scale q_i . k_j) v_j with one softmax over the row and the column.

    q (B, N, d), k (B, N, d), v (B, N, e) -> (B, N, e), in the dtype of v, computed in float32 or
    wider.
    """
    wide = torch.promote_types(torch.promote_types(q.dtype, v.dtype), torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k, values = (x.to(wide).unflatten(1, (-1, width)) for x in (q * scale, k, v))
        rows = q @ k.mT  # (B, H, W, W)
        columns = q.transpose(1, 2) @ k.transpose(1, 2).mT  # (B, W, H, H)
        own = torch.eye(columns.shape[2], dtype=torch.bool, device=q.device)
        columns = columns.masked_fill(own, -torch.inf)  # it is a key of the row already
        logits = torch.cat([rows, columns.transpose(1, 2)], dim=3)
        if q.device.type == "cpu" and not torch.compiler.is_compiling():
            cut_logits(logits.detach())
        weights = torch.softmax(logits, dim=3)
        y = weights[..., :width] @ values
        along = weights[..., width:].transpose(1, 2) @ values.transpose(1, 2)  # (B, W, H, e)
        return (y + along.transpose(1, 2)).flatten(1, 2).to(v.dtype)


def row_column_mean(mean: Callable[..., Tensor], width: int, *maps: Tensor) -> Tensor:
    """y_i = 1/(H + W - 1) sum_j f_ij g_j over the row and the column, (B, N, e).

    `mean` computes 1/M sum_j f_ij g_j from maps (B, N, any) or (B, N); the last one is g. The sum
    is that of the row and that of the column, less the term of the position itself.
    """
    frames = [x.unflatten(1, (-1, width)) for x in maps]  # (B, H, W, any)
    batch, height = frames[0].shape[:2]
    row = mean(*(x.flatten(0, 1) for x in frames)).unflatten(0, (batch, height))
    column = mean(*(x.transpose(1, 2).flatten(0, 1) for x in frames))
    column = column.unflatten(0, (batch, width)).transpose(1, 2)
    own = mean(*(x.flatten(0, 2).unsqueeze(1) for x in frames)).view_as(row)
    y = (width * row + height * column - own) / (height + width - 1)
    return y.flatten(1, 2)
