"""How a run is trained, said once and passed around."""

import math
from dataclasses import dataclass

import torch

from nlnet.trainer.schedule import Schedule


@dataclass(frozen=True)
class Recipe:
    """How a run is trained, in objects and numbers."""

    device: torch.device
    seed: int
    total_steps: int  # of the run; the last epoch may be cut
    steps_per_epoch: int
    lr: float
    schedule: Schedule
    accumulate: int = 1  # micro-batches in a step
    clip_grad_norm: float | None = None
    label_smoothing: float = 0.0
    precision: torch.dtype | None = None  # of autocast; None computes in float32
    channels_last: bool = False
    max_bad_share: float = 0.01  # clips that cannot be read, of those asked for
    precise_bn: int = 0  # micro-batches that re-estimate BN statistics before an evaluation
    eval_every: int = 1  # epochs
    save_every_steps: int | None = None

    @property
    def num_epochs(self) -> int:
        """Epochs, begun ones included."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """Steps of an epoch; fewer than the others have in a last one that is cut."""
        return min(self.steps_per_epoch, self.total_steps - epoch * self.steps_per_epoch)
