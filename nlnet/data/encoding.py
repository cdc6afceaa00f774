"""Writing frames as an H.264 video in an MP4 file, whole or not at all."""

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from nlnet.errors import UserError

TIME_BASE = Fraction(1, 90_000)  # seconds of a unit of the time stamps


class VideoWriter:
    """Write frames one by one; the file appears when the context is left without an error.

    The sides of the frames must be even. Memory does not grow with the number of frames.

    Args:
        path: the MP4 file
        rate: frames per second, from which the encoder plans its bits
        crf: quality of x264; lower is better and larger

    Raises:
        UserError: the file cannot be written; an older file at `path` is unchanged.
    """

    def __init__(self, path: Path, rate: float, crf: int = 20) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        self._rate = Fraction(rate).limit_denominator(1001)
        self._options = {"crf": str(crf), "preset": "veryfast"}
        self._last = -1  # time stamp of the last frame
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._partial), "w", format="mp4")
        except OSError as error:  # FFmpeg's errors of the system are OSErrors too
            raise self._cannot_write(error) from error
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = self._options
        self._stream.time_base = TIME_BASE
        self._stream.codec_context.time_base = TIME_BASE
        self._stream.codec_context.thread_count = 2

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, uint8 RGB (H, W, 3), shown from `time` in seconds on; times rise."""
        if self._last < 0:
            self._stream.height, self._stream.width = frame.shape[:2]
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._last = max(round(time / TIME_BASE), self._last + 1)
        picture.pts, picture.time_base = self._last, TIME_BASE
        self._encode(picture)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._encode(None)
                self._container.close()
                self._partial.replace(self.path)
            else:
                with suppress(OSError):
                    self._container.close()
        except OSError as failure:
            raise self._cannot_write(failure) from failure
        finally:
            with suppress(OSError):  # an error here would replace the original exception
                self._partial.unlink()

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"{self.path.parent}: cannot write {self.path.name} ({error.strerror}); free disk space"
            " or give another folder, then run the command again"
        )
