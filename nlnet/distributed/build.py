"""Choose the device of a rank from a DistConfig."""

import torch

from nlnet.config import DistConfig
from nlnet.distributed.ranks import pick_device
from nlnet.errors import ArgumentError, UsageError


def build_device(cfg: DistConfig) -> torch.device:
    """The device of this rank; raises UsageError, with the keys, if there is none."""
    try:
        return pick_device(cfg.device)
    except ArgumentError as error:
        most = max(torch.cuda.device_count(), 1)
        raise UsageError(
            f"dist.{error}: set dist.device=cpu, or dist.num_procs={most} or less"
        ) from error
