"""The data that passes from the loaders to the training loop: views of videos, and their source."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Failure(NamedTuple):
    """A video that cannot be read, and why."""

    path: str
    cause: str


class ManifestUse(NamedTuple):
    """Which manifest a split was read from, and how much of it is used."""

    file: str
    part: str  # the split; "" for all rows
    sha256: str  # of the file
    rows: int  # of the split
    used: int
    left_out: Mapping[str, int]  # rows by the status that is not ok

    def record(self) -> dict[str, object]:
        """What the results of a run say about it."""
        return {**self._asdict(), "completeness": self.used / self.rows}


class Clip(NamedTuple):
    """One view of one video: uint8 frames (3, T, H, W)."""

    video: Tensor
    label: Tensor  # () int64, or (K,) float32 if a video may have several labels
    video_id: int  # the row of the video in its index


class Sample(NamedTuple):
    """All views of one video, and the videos that could not be read in its place."""

    clips: tuple[Clip, ...]
    failures: tuple[Failure, ...]


class ClipBatch(NamedTuple):
    """A batch of views: video (B, 3, T, H, W) uint8, label (B,) or (B, K), video_id (B,)."""

    video: Tensor
    label: Tensor
    video_id: Tensor
    failures: tuple[Failure, ...]

    def to(self, device: torch.device) -> "ClipBatch":
        """The same batch on a device; the copy is asynchronous if the memory is pinned."""
        return ClipBatch(
            self.video.to(device, non_blocking=True),
            self.label.to(device, non_blocking=True),
            self.video_id.to(device, non_blocking=True),
            self.failures,
        )
