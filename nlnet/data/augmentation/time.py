"""Random changes of the time of a training clip: its speed and its direction."""

from dataclasses import dataclass, replace

import numpy as np

from nlnet.data.clip_sampling import RandomClip


@dataclass(frozen=True)
class TimeChange:
    """A ClipSampler that takes one random clip with another speed, or backwards.

    The distance of the frames is multiplied by a number that is uniform in [1 - jitter,
    1 + jitter]. The order of the frames is reversed with probability `reversal`.
    """

    clip: RandomClip
    jitter: float
    reversal: float

    def __call__(self, length: int, rng: np.random.Generator) -> list[np.ndarray]:
        clip = self.clip
        if self.jitter:
            clip = clip.times(rng.uniform(1 - self.jitter, 1 + self.jitter))
        clips = clip(length, rng)
        if self.reversal and rng.random() < self.reversal:
            clips = [indices[::-1] for indices in clips]
        return clips

    def times(self, factor: float) -> "TimeChange":
        return replace(self, clip=self.clip.times(factor))
