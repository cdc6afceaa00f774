"""Choose the device of a rank from a DistConfig."""

import torch

from nlnet.checks import section
from nlnet.config import DistConfig
from nlnet.distributed.ranks import pick_device


def build_device(cfg: DistConfig) -> torch.device:
    """The device of this rank; raises UsageError, with the key, if there is none."""
    with section("dist"):
        return pick_device(cfg.device)
