"""Small weights of a softmax are 0, so that they make no denormal numbers.

Intel's matrix products take 15 to 40 times as long with many denormal numbers, which are those
below 2^-126 in float32. The weights of the Gaussian, whose logits are not scaled, are often so
small. `nlnet/numerics/denormals.py` has the processor's own setting.
"""

from math import log, log2

import torch
from torch import Tensor

PART = 2**18  # logits that are cut at once: 1 MB fits in the cache of a core


def least(dtype: torch.dtype) -> float:
    """The logarithm to base 2 of the least weight that is not 0, relative to the largest of a row.

    It is -63 in float32: half of the exponents. The sum of all smaller weights is less than the
    rounding of the largest one, and products of the others with gradients down to 2^-63 are no
    denormal numbers.
    """
    return log2(torch.finfo(dtype).tiny) / 2


def cut_exp2(exponents: Tensor) -> Tensor:
    """2^x in place, and 0 where x is at most `least`."""
    return torch.threshold_(exponents, least(exponents.dtype), -torch.inf).exp2_()


def cut_logits(logits: Tensor) -> None:
    """Make the logits of small weights -inf, for a softmax over the last dimension; in place.

    If there is a small weight, the largest logit of each row is subtracted, as a softmax does
    itself: the other weights stay the same.
    """
    if type(logits) is not Tensor:
        return  # a fake tensor has no numbers
    limit = least(logits.dtype) * log(2)
    low, high = logits.aminmax()
    if (low - high).item() > limit:
        return
    rows = logits.flatten(0, -2)
    for part in rows.split(max(PART // rows.shape[1], 1)):
        torch.threshold_(part.sub_(part.amax(dim=1, keepdim=True)), limit, -torch.inf)
