"""The order of the videos: keys (epoch, video), which depend on the seed alone."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochOrder(Sampler[tuple[int, int]]):
    """One rank's share of the training order.

    The videos are shuffled with (seed, epoch) and divided into global batches. Each global batch is
    divided into one micro-batch for each accumulation step and rank. The content of a global batch
    therefore depends neither on the number of ranks nor on the number of accumulation steps. The
    videos of the last, incomplete batch are not used in this epoch. A data set smaller than one
    batch is repeated to fill it.
    """

    def __init__(
        self,
        num_videos: int,
        *,
        seed: int,
        batch_size: int,
        accumulate: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.steps_per_epoch = max(num_videos // batch_size, 1)
        self._num_videos = num_videos
        self._seed = seed
        # of a global batch: (accumulation step, rank, position in the micro-batch)
        self._layout = (accumulate, world_size, batch_size // (accumulate * world_size))
        self._rank = rank
        self._epoch = 0
        self._step = 0

    def set_position(self, epoch: int, step: int) -> None:
        """Start the next iteration at this step of this epoch, both counted from 0."""
        self._epoch = epoch
        self._step = step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        shuffled = np.random.default_rng([self._seed, self._epoch]).permutation(self._num_videos)
        shape = (self.steps_per_epoch, *self._layout)
        batches = np.resize(shuffled, shape)  # repeats the videos, or drops the last ones
        for video in batches[self._step :, :, self._rank].ravel().tolist():
            yield self._epoch, video

    def __len__(self) -> int:
        accumulate, _, micro_batch = self._layout
        return (self.steps_per_epoch - self._step) * accumulate * micro_batch


def evaluation_order(num_videos: int, *, rank: int, world_size: int) -> list[tuple[int, int]]:
    """One rank's share of an evaluation: each video is in the share of exactly one rank."""
    return [(0, video) for video in range(rank, num_videos, world_size)]
