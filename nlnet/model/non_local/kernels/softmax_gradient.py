"""The derivative of a softmax that is a custom operator of torch.

The operator computes (y, kept) from (q, k, v, scale); `kept` is what its backward pass needs.
Shapes: queries q (B, N, d), keys k (B, M, d), values v (B, M, e), output y (B, N, e).
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef


def register_gradient(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Make `backward` the derivative of `forward`: (dy, q, k, v, y, kept, scale) -> (dq, dk, dv).

    Its results have the shapes of q, k and v and are contiguous. Autocast does not change it.
    """

    def save(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.save_for_backward(*inputs[:3], *output)
        ctx.scale = inputs[3]

    def differentiate(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(dy.device.type, enabled=False):
            return *backward(dy, *ctx.saved_tensors, ctx.scale), None

    forward.register_autograd(differentiate, setup_context=save)
    backward.register_fake(_empty_gradients)


def _empty_gradients(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, kept: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
