"""What a reader of video files is. The decoders that implement it are in the files beside this one.

Frame i of a file is the i-th frame that the decoder returns, counted from 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from nlnet.data.decoding.known import KnownFrames
from nlnet.errors import UserError

Reader = TypeVar("Reader", bound="VideoReader")


class DecodeError(UserError):
    """A video file cannot be read; `cause` says why."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"


class FrameCountError(DecodeError):
    """The number of frames was wrong, as declared or as known; `num_frames` is now exact."""


class VideoReader(ABC):
    """The frames of one file, opened once for all the clips that are taken from it.

    Creating a reader opens the file. A reader is a context manager that closes the file on every
    exit. `num_frames` is the number of frames that can be decoded, or that a reliable index of the
    container declares. Raises DecodeError for a file without a readable video.
    """

    path: Path
    num_frames: int
    rate: float | None = None  # frames per second, the mean of the video; None if it is unknown

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frames with these numbers, in this order: uint8 RGB (n, H, W, 3).

        A number may be repeated. Errors are those of `frames`, and IndexError for no number.
        """
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if wanted.size == 0:
            raise IndexError(f"{self.path}: no frames of {self.num_frames}")
        out = np.empty(0, np.uint8)
        for k, pixels in enumerate(self.frames(wanted)):
            if k == 0:
                out = np.empty((len(places), *pixels.shape), np.uint8)
            out[places == k] = pixels
        return out

    def frames(self, numbers: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """The frames with these numbers, which rise, one at a time: uint8 RGB (H, W, 3).

        All frames have the size of the first frame of the video, as the file's tag of rotation and
        mirroring shows it. Raises IndexError for a number outside the video, DecodeError for
        damage that affects a wanted frame, and FrameCountError if decoding finds another number of
        frames than was declared: the frames that came before the error are then void.
        """
        wanted = [int(number) for number in numbers]
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.num_frames:
            raise IndexError(f"{self.path}: frames {wanted} of {self.num_frames}")
        return self._frames(wanted)

    @abstractmethod
    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        """As `frames`, for numbers inside the video."""

    @abstractmethod
    def close(self) -> None:
        """Close the file; a second call does nothing."""

    def __enter__(self: Reader) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class OpenVideo(Protocol):
    """Opens a video for access to any frame."""

    def __call__(
        self, path: Path, file: BinaryIO | None = None, *, known: KnownFrames | None = None
    ) -> VideoReader:
        """Open the file, or `file`, of which `path` is then the name.

        `known` is what was measured about it, if it is the same file.
        """
