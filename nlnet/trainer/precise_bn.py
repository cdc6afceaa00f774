"""Running statistics of batch norms, as whole batches have them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.clip import ClipBatch
from nlnet.distributed.ranks import all_sum


@torch.no_grad()
def precise_bn(model: nn.Module, batches: Iterable[ClipBatch]) -> None:
    """Set the running statistics of batch norms to those of whole batches of all ranks.

    The mean over all inputs, and their unbiased variance by E[x^2] - E[x]^2, in float64; the
    network normalises with the statistics of each batch meanwhile (Wu and Johnson, "Rethinking
    'Batch' in BatchNorm", 2021, section 3). Frozen parts are left alone.
    """
    model.train()
    moments: dict[_BatchNorm, Tensor] = {}

    def observe(norm: _BatchNorm, inputs: tuple[Tensor]) -> None:
        x = inputs[0].float().transpose(0, 1).flatten(1)  # (C, inputs of a channel)
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
