"""The index of a split: the path and the labels of each video."""

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from nlnet.clip import ManifestUse
from nlnet.data.decoding.known import KnownFrames
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.index.columns import select_parts
from nlnet.data.shards.members import ShardMembers
from nlnet.errors import UserError

_ODD = re.compile(r"/(/|\./|\.?$)|^\./")  # what a Path leaves out of its text


@dataclass(frozen=True)
class PathTable:
    """N paths below a folder in one array of bytes, so that forked workers share the memory.

    Separate Python objects would be copied into each worker when their reference counts change.
    """

    data: np.ndarray  # uint8, the paths one after the other
    ends: np.ndarray  # (N,) int64, where each path ends in `data`
    folder: bytes = b""  # comes before each path

    def __getitem__(self, i: int) -> Path:
        start = self.ends[i - 1] if i else 0
        return Path(os.fsdecode(self.folder + self.data[start : self.ends[i]].tobytes()))

    def names(self, rows: range) -> list[str]:
        """The paths of rows that follow one another, as texts: as str(path), but faster."""
        ends = self.ends[rows.start : rows.stop].tolist()
        start = int(self.ends[rows.start - 1]) if rows.start else 0
        data = self.data[start : ends[-1]].tobytes()
        starts = [0, *(end - start for end in ends)]
        texts = [os.fsdecode(self.folder + data[a:b]) for a, b in pairwise(starts)]
        return [str(Path(text)) if _ODD.search(text) else text for text in texts]

    def select(self, rows: np.ndarray) -> "PathTable":
        """The paths of these rows."""
        ends, (data,) = select_parts(self.ends, rows, [self.data])
        return PathTable(data, ends, self.folder)


def path_table(paths: Iterable[Path]) -> PathTable:
    """A table of the given paths."""
    encoded = [os.fsencode(path) for path in paths]
    ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
    return PathTable(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)


class EntryTable(NamedTuple):
    """The entries of N files, one file after the other; most files have none."""

    frames: np.ndarray  # int32
    times: np.ndarray  # int64
    ends: np.ndarray  # (N,) int64, where the entries of each file end

    def of(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The frames and the times of the entries of file i."""
        part = slice(self.ends[i - 1] if i else 0, self.ends[i])
        return self.frames[part], self.times[part]

    def select(self, rows: np.ndarray) -> "EntryTable":
        """The entries of these files."""
        ends, (frames, times) = select_parts(self.ends, rows, [self.frames, self.times])
        return EntryTable(frames, times, ends)


class MeasuredFrames(NamedTuple):
    """What a manifest knows about the frames of N videos."""

    num_frames: np.ndarray  # (N,) int32, frames of the file that decode
    first: np.ndarray  # (N,) int32, the first frame of the clip that the row describes
    end: np.ndarray  # (N,) int32, the frame after its last
    size: np.ndarray  # (N,) int64, bytes of the file
    modified: np.ndarray  # (N,) int64, its time of change in nanoseconds
    entries: EntryTable

    def select(self, rows: np.ndarray) -> "MeasuredFrames":
        """What is known about these videos."""
        num_frames, first, end, size, modified = (array[rows] for array in self[:5])
        entries = self.entries.select(rows)
        return MeasuredFrames(num_frames, first, end, size, modified, entries)


class VideoIndex:
    """Paths and labels of N videos, and the K class names that the labels refer to.

    `labels` is (N,) int64 if each video has one label. It is (N, K) float32 with a 1 at each label
    if videos may have several. `missing` names the listed videos that have no file. `remarks` are
    lines about the split that a user should see. An index from a manifest also has `manifest` and
    `frames`, and `members` if its videos are in shards. `listed_frames` is (N,) int64, the frames
    of each folder of frames, 0 if no list tells them.
    """

    def __init__(
        self,
        paths: Iterable[Path] | PathTable,
        labels: Sequence[int] | np.ndarray,
        class_names: tuple[str, ...],
        missing: tuple[str, ...] = (),
        *,
        remarks: tuple[str, ...] = (),
        manifest: ManifestUse | None = None,
        frames: MeasuredFrames | None = None,
        listed_frames: np.ndarray | None = None,
        members: ShardMembers | None = None,
    ) -> None:
        self.class_names = class_names
        self.missing = missing
        self.remarks = remarks
        self.manifest = manifest
        self.frames = frames
        self.listed_frames = listed_frames
        self.members = members
        self.labels = np.asarray(labels)
        self._paths = paths if isinstance(paths, PathTable) else path_table(paths)

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, count: int) -> "VideoIndex":
        """At most `count` of the videos, evenly spaced over the index, with the same classes."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        return self.select(rows)

    def select(self, rows: np.ndarray) -> "VideoIndex":
        """The videos of these rows, with the same classes."""
        return VideoIndex(
            self._paths.select(rows),
            self.labels[rows],
            self.class_names,
            self.missing,
            remarks=self.remarks,
            manifest=self.manifest,
            frames=None if self.frames is None else self.frames.select(rows),
            listed_frames=None if self.listed_frames is None else self.listed_frames[rows],
            members=None if self.members is None else self.members.select(rows),
        )

    def without(self, paths: Collection[str]) -> "VideoIndex":
        """The index without some files, with the same classes; the same if there are none.

        Raises UserError if no video is left.
        """
        if not paths:
            return self
        kept = (str(self.path(row)) not in paths for row in range(len(self)))
        rows = np.flatnonzero(np.fromiter(kept, bool, len(self)))
        if not rows.size:
            raise UserError(f"none of {len(self)} videos can be read, the first {self.path(0)}")
        return self.select(rows)

    @property
    def class_counts(self) -> np.ndarray:
        """The number of videos of each class (K,), int64."""
        if self.labels.ndim == 2:
            return (self.labels > 0).sum(0)
        return np.bincount(self.labels, minlength=len(self.class_names))

    def path(self, i: int) -> Path:
        """The file of video i, counted from 0; for a video in a shard, shard/member."""
        return self._paths[i]

    def names(self, rows: range) -> list[str]:
        """The files of videos that follow one another, as texts."""
        return self._paths.names(rows)

    def open(self, i: int) -> BinaryIO | None:
        """Video i of a shard as an open file; None if it has a file of its own.

        Raises DecodeError if the shard cannot be read.
        """
        return None if self.members is None else self.members.open(i, self.path(i))

    def known(self, i: int) -> KnownFrames | None:
        """What a manifest knows about the file of video i; None without a manifest."""
        if self.frames is None:
            return None
        num_frames, _, _, size, modified = (int(array[i]) for array in self.frames[:5])
        frames, times = self.frames.entries.of(i)
        return KnownFrames(size, modified, num_frames, frames, times)

    def clip_range(self, i: int, num_frames: int) -> tuple[int, int]:
        """The first frame of video i that belongs to its row, and how many there are.

        All frames of the file, unless a manifest or a list says otherwise; `num_frames` is what the
        reader of the file says now. Raises DecodeError if frames are missing that are listed.
        """
        listed = 0 if self.listed_frames is None else int(self.listed_frames[i])
        if listed > num_frames:
            raise DecodeError(self.path(i), f"has {num_frames} frames, but its list says {listed}")
        if listed:
            return 0, listed
        if self.frames is None:
            return 0, num_frames
        first = min(int(self.frames.first[i]), num_frames - 1)
        return first, max(min(int(self.frames.end[i]), num_frames) - first, 1)
