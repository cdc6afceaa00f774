"""Choose the device and the time limits of a rank from a DistConfig."""

import torch

from nlnet.checks import positive
from nlnet.config import DistConfig
from nlnet.distributed.ranks import pick_device
from nlnet.distributed.watch import WaitLimits
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


def build_limits(cfg: DistConfig) -> WaitLimits:
    """How long a rank waits for the others; raises UsageError for a number that is not positive."""
    positive("dist.first_timeout", cfg.first_timeout)
    positive("dist.timeout", cfg.timeout)
    remedy = "raise dist.timeout (dist.first_timeout at the start) if it may take longer"
    return WaitLimits(cfg.first_timeout, cfg.timeout, remedy)
