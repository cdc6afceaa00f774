"""Whether a contender computes what it should: its loss and gradients are those of float32."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nlnet.errors import UserError

LARGEST_LOSS_ERROR = 0.05  # relative
LEAST_COSINE = 0.9  # of the angle between all gradients and those in float32

Gradients = Sequence[Tensor]
LossAndGradients = tuple[Tensor, Gradients]


def check_agreement(
    name: str,
    exact: Callable[[], LossAndGradients],
    found: Callable[[], LossAndGradients],
) -> None:
    """Compare a contender with float32.

    Where the gradients in float32 do not fit into the memory, only the contender's own are looked
    at. Raises UserError if a number is not finite, or if the loss or the gradients differ.
    """
    try:
        expected, wanted = _on_host(exact())
    except torch.OutOfMemoryError:
        expected, wanted = math.nan, []
    loss, gradients = _on_host(found())
    if not math.isfinite(loss) or not all(g.isfinite().all() for g in gradients):
        raise UserError(f"{name}: the loss is {loss:.4g}, it or a gradient is not finite")
    if not wanted:
        return
    if not math.isclose(loss, expected, rel_tol=LARGEST_LOSS_ERROR):
        raise UserError(f"{name}: the loss is {loss:.4g}; in float32 it is {expected:.4g}")
    a, b = (torch.cat([g.flatten() for g in part]) for part in (gradients, wanted))
    cosine = float(a @ b / (a.norm() * b.norm()))
    if not cosine >= LEAST_COSINE:
        raise UserError(f"{name}: the gradients are not those of float32 (cosine {cosine:.2g})")


def _on_host(result: LossAndGradients) -> tuple[float, list[Tensor]]:
    loss, gradients = result
    return loss.item(), [gradient.detach().cpu().double() for gradient in gradients]
