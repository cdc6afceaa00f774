"""The average of the weights over the steps of a run, which is evaluated in place of the weights.

Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; with
exponential weights as in Szegedy et al., "Rethinking the Inception architecture", 2016, section 8.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

TensorList = tuple[Tensor, ...] | list[Tensor]


def average_weights(model: nn.Module, decay: float, *, channels_last: bool) -> AveragedModel:
    """Return a copy of a model for the average a_t = decay a_(t-1) + (1 - decay) w_t, a_1 = w_1.

    w_t are the parameters and the running statistics of batch norms after step t: averaged weights
    need averaged statistics (timm and torchvision's references average both). Counters are copied.
    """
    average = AveragedModel(model, multi_avg_fn=_average_floats(decay), use_buffers=True)
    if channels_last:
        average.to(memory_format=torch.channels_last_3d)
    return average


def _average_floats(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the update of tensors of one device and number type."""
    average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(averaged: TensorList, current: TensorList, count: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, count)
        else:
            torch._foreach_copy_(averaged, current)

    return update
