"""The frames of a video from the first to the last, each decoded once: files, cameras, URLs.

PyAVReader gives any frame of a file by its number. A stream gives all frames in order, with the
time of each. It needs no length and no seeking, so that it also reads cameras and live streams.
The frames of a file are the same, bit for bit, and in the same order.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, TypeVar

import av
import numpy as np

from nlnet.data.decoding.array import ArrayReader
from nlnet.data.decoding.container import (
    READ_ERRORS,
    RgbConverter,
    open_video_stream,
    read_packets,
    why,
)
from nlnet.data.decoding.frame_index import mean_rate
from nlnet.data.decoding.reader import DecodeError

Stream = TypeVar("Stream", bound="FrameStream")

DEFAULT_RATE = 25.0  # frames per second, if the source declares no rate
AVI = "avi"  # FFmpeg's name of the format
REORDERED = 4  # frames; in AVI files a time stamp is at most so many frames away from its frame
CAMERAS = "/dev/video"
CAMERA_FORMAT = "v4l2"


class Frame(NamedTuple):
    """One frame. Its pixels are converted when `pixels` is called: uint8 RGB (H, W, 3)."""

    time: float  # seconds since the first frame
    num_bytes: int  # memory of the frame
    pixels: Callable[[], np.ndarray]


class FrameStream(ABC):
    """The frames of one source in order. A stream is iterated once, and closed on every exit."""

    path: Path  # names the source in messages
    rate: float  # frames per second, as declared
    is_live: bool  # it has no end that can be foreseen, and cannot be read twice

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames, with times that rise, and all of one size.

        Raises DecodeError for damage; frames of live sources may be damaged.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the source; a second call does nothing."""

    def __enter__(self: Stream) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class PyAVStream(FrameStream):
    """A stream that decodes with FFmpeg through PyAV.

    The time of a frame is its time stamp. A time stamp that is missing or not later than the one
    before (raw streams, streams that start again) is replaced by the time before plus 1 / rate.

    Args:
        path: a file, a camera (/dev/video0) or a URL; with `file`, only a name for messages
        file: a file-like object that is read instead
        form: FFmpeg's name of the file's format; None detects it
        num_threads: threads that decode a file; 0 takes all cores
    """

    def __init__(
        self,
        path: Path | str,
        file: BinaryIO | None = None,
        *,
        form: str | None = None,
        num_threads: int = 0,
    ) -> None:
        self.path = Path(path)
        self.is_live = file is None and is_live(path)
        if file is None and _is_camera(path):
            form = CAMERA_FORMAT
        source = path if file is None else file
        self._container, self._stream = open_video_stream(source, path, form=form)
        # One file is read at a time, so that all cores can decode; frames of a live source must
        # not wait until each thread has one.
        self._stream.thread_type = "SLICE" if self.is_live else "AUTO"
        if num_threads:
            self._stream.codec_context.thread_count = num_threads
        self.rate = mean_rate(self._stream, None) or DEFAULT_RATE
        self._rgb = RgbConverter()

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        count, time, start = 0, 0.0, None
        try:
            for frame, stamp in self._timed():
                if frame.is_corrupt and not self.is_live:
                    raise DecodeError(self.path, f"frame {count} is damaged")
                self._rgb.start(frame)
                if count > 0:
                    following = time + 1 / self.rate
                    if stamp is None:
                        time = following
                    else:
                        if start is None or stamp - start <= time:
                            start = stamp - following
                        time = stamp - start
                else:
                    start = stamp
                count += 1
                pixels = partial(self._rgb, frame)
                yield Frame(time, sum(plane.buffer_size for plane in frame.planes), pixels)
        except READ_ERRORS as error:
            raise DecodeError(self.path, f"{why(error)} after {count} frames") from error
        if count == 0:
            raise DecodeError(self.path, "no frame can be decoded")

    def _timed(self) -> Iterator[tuple[av.VideoFrame, float | None]]:
        """Each frame with its time stamp.

        AVI files store times in the order of decoding. With frames of type B they come in another
        order than the frames, so that the times of the next frames are sorted.
        """
        depth = REORDERED if self._container.format.name == AVI else 0
        frames: deque[av.VideoFrame] = deque()
        stamps: list[float] = []
        for frame in self._decoded():
            frames.append(frame)
            if frame.time is not None:
                heappush(stamps, frame.time)
            if len(frames) > depth:
                yield frames.popleft(), heappop(stamps) if stamps else None
        while frames:
            yield frames.popleft(), heappop(stamps) if stamps else None

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in read_packets(self._container, self._stream):
            yield from self._stream.codec_context.decode(packet)


class ArrayStream(FrameStream):
    """The frames of an array, uint8 RGB (T, H, W, 3), at a constant rate."""

    is_live = False

    def __init__(self, frames: np.ndarray, rate: float) -> None:
        self.path = ArrayReader(frames).path
        self.rate = rate
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        for i, pixels in enumerate(self._frames):
            yield Frame(i / self.rate, pixels.nbytes, pixels.view)

    def close(self) -> None:
        """There is nothing to close."""


def _is_camera(source: Path | str) -> bool:
    """Whether a name is that of a camera of this machine."""
    return str(source).startswith(CAMERAS)


def is_live(source: Path | str) -> bool:
    """Whether a name is that of a camera or a URL, which can be read only once and in order."""
    return _is_camera(source) or (isinstance(source, str) and "://" in source)
