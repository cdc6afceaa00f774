"""A copy of the buffers of a model: a step that is skipped must not change its batch norms."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def copy_buffers(model: nn.Module) -> dict[torch.dtype, Tensor]:
    """Copy all buffers: one vector for each dtype, because many small copies are slow on a GPU."""
    return {
        dtype: torch.cat([buffer.detach().reshape(-1) for buffer in buffers])
        for dtype, buffers in _by_dtype(model).items()
    }


@torch.no_grad()
def restore_buffers(model: nn.Module, copies: Mapping[torch.dtype, Tensor]) -> None:
    """Give the buffers the values that `copy_buffers` has copied."""
    for dtype, buffers in _by_dtype(model).items():
        parts = copies[dtype].split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))


def _by_dtype(model: nn.Module) -> dict[torch.dtype, list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for buffer in model.buffers():
        groups.setdefault(buffer.dtype, []).append(buffer)
    return groups
