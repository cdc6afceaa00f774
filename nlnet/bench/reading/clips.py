"""The clips of videos as a data set: the same clips for every reader."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nlnet.bench.reading.readers import Read, Work
from nlnet.data.clip_sampling import SAMPLERS, ClipShape
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.views import stack_views

PROTOCOL = SAMPLERS["pytorchvideo"]  # the frames of `EncodedVideo.get_clip`, subsampled


class ClipKey(NamedTuple):
    """Which sample to read."""

    video: int
    number: int  # of the sample among those of the video


class Clips(Dataset[list[Tensor]]):
    """One random clip of a video, or with `num_clips` that many clips at equal distances.

    The clip depends on the key alone: every reader reads the same frames.
    """

    def __init__(
        self,
        index: VideoIndex,
        num_frames: int,
        read: Read,
        work: Work,
        shape: ClipShape,
        num_clips: int | None = None,
    ) -> None:
        self._index = index
        self._num_frames = num_frames
        self._read = read
        self._work = work
        self._shape = shape
        self._num_clips = num_clips

    def __getitem__(self, key: ClipKey) -> list[Tensor]:
        rng = np.random.default_rng([key.video, key.number])
        return self._read(self._index, key.video, self.numbers(rng), self._work, rng)

    def numbers(self, rng: np.random.Generator) -> list[np.ndarray]:
        """The frame numbers (T,) of each clip."""
        if self._num_clips is None:
            return [PROTOCOL.train(self._shape, self._num_frames, rng)]
        return PROTOCOL.test(self._shape, self._num_frames, self._num_clips)


def build_clip_loader(
    clips: Clips, keys: Sequence[ClipKey], *, batch_size: int, num_workers: int
) -> DataLoader[list[Tensor]]:
    """A loader of batches of views (B, 3, T, S, S), as the one of nlnet/data/workers/build.py."""
    return DataLoader(
        clips,
        batch_size=batch_size,
        sampler=keys,
        num_workers=num_workers,
        collate_fn=_collate,
        persistent_workers=True,
    )


def _collate(samples: Sequence[list[Tensor]]) -> Tensor:
    return stack_views([view for views in samples for view in views])
