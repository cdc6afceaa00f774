"""Writing frames as an H.264 video in an MP4 file, whole or not at all."""

import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from nlnet.errors import UserError

# The default rounding of FFmpeg makes gray pixels of JPEG images one to two levels darker.
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
TIME_BASE = Fraction(1, 90_000)  # seconds of a unit of the time stamps


class VideoWriter:
    """Write frames one by one; the file appears when the context is left without an error.

    The sides must be even. Memory does not grow with the number of frames.

    Args:
        path: the MP4 file
        rate: frames per second, from which the encoder plans its bits
        crf: quality of x264; lower is better and larger
        size: width and height to which frames are scaled; None takes those of the first frame
        gop: each gop-th frame is a key frame, and no frame depends on one before its key frame;
            None lets x264 choose. With it, the video decodes about twice as fast at the same size
            (no deblocking, CAVLC), and the same frames give the same bytes on each processor.
        comment: a text that is stored in the file

    Raises:
        UserError: the file cannot be written; an older file at `path` is unchanged.
    """

    def __init__(
        self,
        path: Path,
        rate: float,
        crf: int = 20,
        *,
        size: tuple[int, int] | None = None,
        gop: int | None = None,
        comment: str = "",
    ) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        self._rate = Fraction(rate).limit_denominator(1001)
        self._options = {"crf": str(crf), "preset": "veryfast"}
        if gop is not None:
            keys = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0"
            # Without a pyramid, no frame depends on a B frame, so that readers can skip them.
            self._options["x264-params"] = f"{keys}:b-pyramid=none:cpu-independent=1"
            self._options |= {"preset": "medium", "tune": "fastdecode"}
        self._last = -1  # time stamp of the last frame
        self._size = size
        self._reformatter = VideoReformatter()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # With the index at the beginning, a file that is cut short is recognized.
            options = {"movflags": "faststart"}
            self._container = av.open(str(self._partial), "w", format="mp4", options=options)
        except OSError as error:  # FFmpeg's errors of the system are OSErrors too
            raise self._cannot_write(error) from error
        if comment:
            self._container.metadata["comment"] = comment
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = self._options
        self._stream.time_base = TIME_BASE
        self._stream.codec_context.time_base = TIME_BASE
        self._stream.codec_context.thread_count = 2 if gop is None else 1

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, uint8 RGB (H, W, 3), shown from `time` in seconds on; times rise."""
        height, width = frame.shape[:2]
        if self._last < 0:
            self._stream.width, self._stream.height = self._size or (width, height)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if self._size is not None:
            picture = self._reformatter.reformat(
                picture, *self._size, format="yuv420p", interpolation=SCALING, threads=1
            )
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


def scaled_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame, uint8 RGB (H, W, 3), at a width and height, as VideoWriter scales it."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return (
        VideoReformatter()
        .reformat(picture, *size, format="rgb24", interpolation=SCALING, threads=1)
        .to_ndarray()
    )


def read_comment(path: Path) -> str:
    """The text that was stored in a video; empty if there is none, or if it cannot be read."""
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            return container.metadata.get("comment", "")
    except (OSError, ValueError):  # FFmpeg's errors are one of the two
        return ""
