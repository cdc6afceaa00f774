"""Which video comes when: keys (epoch, video) for the loader, functions of the seed alone."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochOrder(Sampler[tuple[int, int]]):
    """One rank's share of the training order.

    The videos are shuffled by (seed, epoch) alone and cut into global batches. A global batch is
    cut into one micro-batch for each accumulation step and rank, so its content depends neither on
    the number of ranks nor of accumulation steps. The videos of the last, incomplete batch sit out
    this epoch; a data set smaller than one batch is repeated to fill it.
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
        # global batches as (accumulation step, rank, place in the micro-batch)
        self._layout = (accumulate, world_size, batch_size // (accumulate * world_size))
        self._rank = rank
        self._epoch = 0
        self._step = 0

    def set_position(self, epoch: int, step: int) -> None:
        """Begin the next iteration at this step of this epoch, both counted from 0."""
        self._epoch = epoch
        self._step = step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        shuffled = np.random.default_rng([self._seed, self._epoch]).permutation(self._num_videos)
        shape = (self.steps_per_epoch, *self._layout)
        batches = np.resize(shuffled, shape)  # repeats, or cuts the end off
        for video in batches[self._step :, :, self._rank].ravel().tolist():
            yield self._epoch, video

    def __len__(self) -> int:
        accumulate, _, micro_batch = self._layout
        return (self.steps_per_epoch - self._step) * accumulate * micro_batch


def evaluation_order(num_videos: int, *, rank: int, world_size: int) -> list[tuple[int, int]]:
    """One rank's share of an evaluation: every video goes to one rank, once."""
    return [(0, video) for video in range(rank, num_videos, world_size)]
