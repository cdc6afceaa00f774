"""A reader of frames that are in memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nlnet.data.decoding.reader import VideoReader
from nlnet.errors import UserError


class ArrayReader(VideoReader):
    """The frames of an array: uint8 RGB (T, H, W, 3). `path` is a name for messages.

    Raises UserError for an array of another shape or type, and for one without frames.
    """

    def __init__(self, frames: np.ndarray, path: Path = Path("array")) -> None:
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise UserError(
                f"{path}: frames {frames.dtype} {frames.shape} are not uint8 (T, H, W, 3) with at "
                "least one frame; give RGB frames in this form"
            )
        self.path = path
        self.num_frames = len(frames)
        self._pixels = frames

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        return (self._pixels[number] for number in wanted)

    def close(self) -> None:
        """There is nothing to close."""
