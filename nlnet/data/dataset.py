"""The views of a video by its key, and batches of views."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nlnet.clip import Clip, ClipBatch, Failure, Sample
from nlnet.data.clip_sampling import ClipSampler, at_rate
from nlnet.data.decoding.reader import DecodeError, FrameCountError, OpenVideo, VideoReader
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.order import SampleKey, entropy, stand_in
from nlnet.data.views import ClipFrames, Transform, read_views, stack_views, wanted_numbers

KNOWN = ""  # cause of a failure that an earlier failure of the same file has


class VideoDataset(Dataset[Sample]):
    """The views of the video with a key: `copies` samples of it, from one decoding.

    All randomness comes from (seed, epoch, video, copy). Neither the number of workers nor a
    restart therefore changes a sample. A video that cannot be read is replaced by a random other
    one, up to `replacements` times. A sample has no clips if none of these videos can be read. A
    video that the key says is broken is not tried; it is a failure with the cause KNOWN. With
    `target_fps`, the clip sampler counts frames of a video that has this rate.
    """

    def __init__(
        self,
        index: VideoIndex,
        clip_sampler: ClipSampler,
        transform: Transform,
        *,
        open_video: OpenVideo,
        seed: int,
        replacements: int,
        copies: int = 1,
        target_fps: float | None = None,
    ) -> None:
        self.index = index
        self._clip_sampler = clip_sampler
        self._transform = transform
        self._open_video = open_video
        self._seed = seed
        self._replacements = replacements
        self._copies = copies
        self._target_fps = target_fps

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        key = SampleKey(*key)
        failures: list[Failure] = []
        for attempt in range(self._replacements + 1):
            video_id = stand_in(self._seed, key, attempt, len(self.index))
            if attempt < key.attempt:
                failures.append(Failure(str(self.index.path(video_id)), KNOWN))
                continue
            first = key.copy * self._copies
            copies = range(first, first + self._copies)
            seeds = [entropy(self._seed, key, attempt, copy) for copy in copies]
            try:
                return Sample(self._views(video_id, seeds), tuple(failures))
            except DecodeError as error:
                failures.append(Failure(str(error.path), error.cause))
        return Sample((), tuple(failures))

    def _views(self, video_id: int, seeds: list[list[int]]) -> tuple[Clip, ...]:
        """All crops of all clips of each copy, clip by clip; the file is opened once."""
        label = torch.tensor(self.index.labels[video_id])
        path, file = self.index.path(video_id), self.index.open(video_id)
        with self._open_video(path, file, known=self.index.known(video_id)) as video:
            try:
                views = self._read_views(video, video_id, seeds)
            except FrameCountError:  # the count is exact from now on
                views = self._read_views(video, video_id, seeds)
        return tuple(Clip(view, label, video_id) for view in views)

    def _read_views(
        self, video: VideoReader, video_id: int, seeds: list[list[int]]
    ) -> list[Tensor]:
        """Views (3, T, S, S); each copy has a generator, for its clips and then for its views."""
        first, num_frames = self.index.clip_range(video_id, video.num_frames)
        clips = []
        sampler = at_rate(self._clip_sampler, video.rate, self._target_fps)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            clips += [ClipFrames(first + numbers, rng) for numbers in sampler(num_frames, rng)]
        return read_views(video.frames(wanted_numbers(clips)), clips, self._transform)


def collate(samples: Sequence[Sample]) -> ClipBatch:
    """All views of all samples in one batch; empty tensors if there is no view."""
    clips = [clip for sample in samples for clip in sample.clips]
    failures = tuple(failure for sample in samples for failure in sample.failures)
    if not clips:
        nothing = torch.empty(0, dtype=torch.int64)
        video = torch.empty((0, 3, 0, 0, 0), dtype=torch.uint8)
        return ClipBatch(video, nothing, nothing, failures)
    return ClipBatch(
        stack_views([clip.video for clip in clips]),  # (B, 3, T, S, S)
        torch.stack([clip.label for clip in clips]),
        torch.tensor([clip.video_id for clip in clips]),
        failures,
    )
