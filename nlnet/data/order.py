"""The order of the videos: keys that depend on the seed alone."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

PART = 4096  # keys that are made at once


class SampleKey(NamedTuple):
    """Which sample to make: a video in an epoch."""

    epoch: int
    video: int  # row of the index
    copy: int = 0  # which of the samples of this video in this epoch
    attempt: int = 0  # the first attempt to read; the videos of those before it are known as broken


def stand_in(seed: int, key: SampleKey, attempt: int, num_videos: int) -> int:
    """The video that is read at an attempt: first the one of the key, then random others."""
    if attempt == 0:
        return key.video
    return int(np.random.default_rng(entropy(seed, key, attempt)).integers(num_videos))


def entropy(seed: int, key: SampleKey, attempt: int, copy: int = 0) -> list[int]:
    """The numbers from which all random numbers of a copy of a sample follow."""
    return [seed, key.epoch, key.video, attempt, *([copy] if copy else [])]


class EpochOrder(Sampler[SampleKey]):
    """One rank's share of the training order.

    Without weights, the videos are shuffled with (seed, epoch) and divided into global batches. The
    videos of the last, incomplete batch are not used in this epoch. A data set smaller than one
    batch is repeated to fill it.

    With `weights` (N,), videos are drawn in proportion to them, as many as an epoch without weights
    has. A video that is expected m times in an epoch comes m times, rounded down or up. The same
    holds for all videos of one group of `groups` (N,) together. Each time has another copy number.

    Each global batch is divided into one micro-batch for each accumulation step and rank. The
    content of a global batch therefore depends neither on the number of ranks nor on the number of
    accumulation steps.
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
        replacements: int = 0,
        weights: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        self.steps_per_epoch = max(num_videos // batch_size, 1)
        self._num_videos = num_videos
        self._seed = seed
        # of a global batch: (accumulation step, rank, position in the micro-batch)
        self._layout = (accumulate, world_size, batch_size // (accumulate * world_size))
        self._rank = rank
        self._replacements = replacements
        self._weights = weights
        self._groups = np.zeros(num_videos, np.int64) if groups is None else groups
        self._epoch = 0
        self._step = 0
        self._is_broken: Callable[[int], bool] = lambda video: False

    def set_position(
        self, epoch: int, step: int, is_broken: Callable[[int], bool] = lambda video: False
    ) -> None:
        """Start the next iteration at this step of this epoch, both counted from 0.

        The keys begin with the first attempt whose video is not broken.
        """
        self._epoch = epoch
        self._step = step
        self._is_broken = is_broken

    def __iter__(self) -> Iterator[SampleKey]:
        rng = np.random.default_rng([self._seed, self._epoch])
        accumulate, world_size, micro_batch = self._layout
        if self._weights is None:
            videos, copies = rng.permutation(self._num_videos), None
        else:
            videos, copies = self._draw(rng, self.steps_per_epoch * math.prod(self._layout))
        first, count, rank = self._step * accumulate, len(self), self._rank
        for start in range(0, count, PART):  # Python's numbers need far more memory than arrays
            # The micro-batch of this rank, counted from the start of the epoch; a place in it.
            micro, place = np.divmod(np.arange(start, min(start + PART, count)), micro_batch)
            # A data set that is smaller than a batch is repeated.
            places = (((first + micro) * world_size + rank) * micro_batch + place) % len(videos)
            numbers = videos[places].tolist()
            its_copies = [0] * len(numbers) if copies is None else copies[places].tolist()
            for video, copy in zip(numbers, its_copies, strict=True):
                yield self._readable(SampleKey(self._epoch, video, copy))

    def __len__(self) -> int:
        accumulate, _, micro_batch = self._layout
        return (self.steps_per_epoch - self._step) * accumulate * micro_batch

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` videos and their copy numbers, by systematic sampling, in random order."""
        assert self._weights is not None
        order = rng.permutation(self._num_videos)
        order = order[np.argsort(self._groups[order], kind="stable")]
        ends = np.cumsum(self._weights[order].astype(np.float64))
        ends = np.where(ends == ends[-1], count, ends * (count / ends[-1]))
        # How many whole numbers plus an offset lie between the ends of two neighbors.
        offset = 1 - rng.random()  # above 0, so that floor(0 - offset) is -1
        times = np.diff(np.floor(ends - offset), prepend=-1).astype(np.int64)
        videos = np.repeat(order, times)
        copies = np.arange(count) - np.repeat(np.cumsum(times) - times, times)
        shuffled = rng.permutation(count)
        return videos[shuffled], copies[shuffled]

    def _readable(self, key: SampleKey) -> SampleKey:
        attempt = 0
        while attempt <= self._replacements and self._is_broken(
            stand_in(self._seed, key, attempt, self._num_videos)
        ):
            attempt += 1
        return key._replace(attempt=attempt)


class EvaluationOrder(Sampler[SampleKey]):
    """One rank's share of an evaluation: each video is in the share of exactly one rank."""

    def __init__(self, num_videos: int, *, rank: int, world_size: int) -> None:
        self._videos = range(rank, num_videos, world_size)

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(0, video) for video in self._videos)

    def skip(self, videos: int) -> None:
        """Leave out the first videos from the next iteration on."""
        self._videos = self._videos[videos:]

    def __len__(self) -> int:
        return len(self._videos)
