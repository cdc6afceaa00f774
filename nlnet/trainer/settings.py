"""The settings of the training loop, as objects and numbers."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from nlnet.trainer.schedule import Schedule


class Remedies(NamedTuple):
    """What the errors of the loop advise. A builder passes texts with the keys of its config."""

    not_finite: str = "lower the learning rate, lengthen the warm-up or clip the gradients"
    unreadable: str = "raise max_bad_share"


def most_bad(asked: int, share: float) -> int:
    """How many of the requested clips may be unreadable: ceil(asked * share).

    One may be bad from the start, and a second one as soon as asked > 1 / share.
    """
    return math.ceil(round(asked * share, 6))


@dataclass(frozen=True)
class LoopSettings:
    """How a model is trained."""

    device: torch.device
    seed: int
    total_steps: int  # of the run; the last epoch can be shorter than the others
    steps_per_epoch: int
    lr: float
    schedule: Schedule
    accumulate: int = 1  # micro-batches per step
    clip_grad_norm: float | None = None
    label_smoothing: float = 0.0
    one_label: bool = False  # labels (B, K) are soft labels of one class each; their rows sum to 1
    class_weights: torch.Tensor | None = None  # (K,) of the loss; None weighs all classes alike
    precision: torch.dtype | None = None  # of autocast; None computes in float32
    channels_last: bool = False
    freeze: tuple[str, ...] = ()  # parts of the model that do not learn
    max_bad_share: float = 0.01  # of the clips, those that may be unreadable
    precise_bn: int = 0  # micro-batches that re-estimate BN statistics before an evaluation
    eval_every: int = 1  # epochs
    save_every_steps: int | None = None
    max_bad_steps: int = 10  # in a row, with a loss or gradient that is not finite
    save_every_minutes: float | None = None
    keep_checkpoints: int = 2  # last.pt and older ones
    max_minutes: float | None = None  # then the run stops at the end of a step
    remedies: Remedies = field(default_factory=Remedies)

    @property
    def num_epochs(self) -> int:
        """The number of epochs, a last one that is not whole included."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """The number of steps of an epoch, counted from 0; the last epoch can be shorter."""
        return min(self.steps_per_epoch, self.total_steps - epoch * self.steps_per_epoch)
