"""The index of a split: the path and the labels of each video."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


class VideoIndex:
    """Paths and labels of N videos, and the K class names that the labels refer to.

    `labels` is (N,) int64 if each video has one label. It is (N, K) float32 with a 1 at each label
    if videos may have several. `missing` names the listed videos that have no file.

    The paths are stored in one array of bytes, so that forked worker processes share the memory.
    Separate Python objects would be copied into each worker when their reference counts change.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        labels: Sequence[int] | np.ndarray,
        class_names: tuple[str, ...],
        missing: tuple[str, ...] = (),
    ) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self.class_names = class_names
        self.missing = missing
        self.labels = np.asarray(labels)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, count: int) -> "VideoIndex":
        """At most `count` of the videos, evenly spaced over the index, with the same classes."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int))
        paths = [self.path(row) for row in rows.tolist()]
        return VideoIndex(paths, self.labels[rows], self.class_names, self.missing)

    @property
    def class_counts(self) -> np.ndarray:
        """The number of videos of each class (K,), int64."""
        if self.labels.ndim == 2:
            return (self.labels > 0).sum(0)
        return np.bincount(self.labels, minlength=len(self.class_names))

    def path(self, i: int) -> Path:
        """The file of video i, counted from 0."""
        start = self._ends[i - 1] if i else 0
        return Path(os.fsdecode(self._bytes[start : self._ends[i]].tobytes()))
