"""Batch norm statistics over many batches, instead of moving averages."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.clip import ClipBatch
from nlnet.distributed.ranks import all_sum
from nlnet.trainer.prepare import set_training_mode


@torch.no_grad()
def precise_bn(
    model: nn.Module, batches: Iterable[ClipBatch], *, freeze: Sequence[str] = ()
) -> None:
    """Set the running statistics of batch norms to those of all batches of all ranks.

    The mean and the unbiased variance E[x^2] - E[x]^2 are computed over all inputs, in float64.
    Meanwhile the network normalizes by the statistics of each batch.

    Args:
        model: is changed and is left in training mode
        batches: of this rank
        freeze: parts of the model that are not changed

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3.
    """
    set_training_mode(model, model, freeze)
    moments: dict[_BatchNorm, Tensor] = {}

    def observe(norm: _BatchNorm, inputs: tuple[Tensor]) -> None:
        x = inputs[0].float().transpose(0, 1).flatten(1)  # (C, inputs per channel)
        variance, mean = (moment.double() for moment in torch.var_mean(x, 1, correction=0))
        ones = torch.ones_like(mean)
        moments[norm] += x.shape[1] * torch.stack([ones, mean, variance + mean.square()])

    handles = []
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and norm.training and norm.running_mean is not None:
            moments[norm] = norm.running_mean.new_zeros(3, norm.num_features, dtype=torch.float64)
            handles.append(norm.register_forward_pre_hook(observe))
    try:
        for batch in batches:
            model(batch.video)
    finally:
        for handle in handles:
            handle.remove()
    for norm, sums in moments.items():
        count, total, squares = all_sum(sums)
        mean = total / count
        variance = (squares / count - mean.square()) * count / (count - 1)
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(variance)
