"""Opening a video with FFmpeg, and the pixels of its frames. Both readers of videos use it."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer, Type
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from nlnet.data.decoding.reader import DecodeError

# How reading fails: FFmpeg's errors, and those of the system or of a file-like object.
READ_ERRORS = (av.FFmpegError, OSError)
TIMEOUT = 10.0  # seconds without data, after which a source on the network has failed
# Pixels of a frame; the largest common size, 8192 x 8192, fits. A larger frame needs more than
# 300 MB, and a damaged header can announce any size.
MAX_PIXELS = 2**26


def open_video_stream(
    source: Path | str | BinaryIO, name: Path | str, *, form: str | None = None
) -> tuple[InputContainer, VideoStream]:
    """Open a video and choose its best video stream.

    Args:
        source: a file, a URL or a seekable file-like object
        name: of the video, for messages
        form: FFmpeg's name of the input format; None detects it

    Raises:
        DecodeError: it cannot be opened, or it has no video.
    """
    path = Path(name)
    if isinstance(source, Path):
        _check_file(source)
        source = str(source)
    timeout = TIMEOUT if isinstance(source, str) and "://" in source else None
    try:
        # Text tags are not always UTF-8. They are not used here.
        container = av.open(source, format=form, metadata_errors="ignore", timeout=timeout)
    except READ_ERRORS as error:
        raise DecodeError(path, why(error)) from error
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        container.close()
        raise DecodeError(path, "no video stream")
    codec = stream.codec_context
    if codec is None:
        container.close()
        raise DecodeError(path, "FFmpeg has no decoder for its video stream")
    if codec.width * codec.height > MAX_PIXELS:
        container.close()
        raise DecodeError(path, f"frames of {codec.width} x {codec.height} pixels are too large")
    codec.options = {"max_pixels": str(MAX_PIXELS)}  # for frames of another size than announced
    return container, stream


def _check_file(path: Path) -> None:
    """Raise DecodeError for what would block FFmpeg, such as a named pipe."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DecodeError(path, why(error)) from error
    if not stat.S_ISREG(mode):
        raise DecodeError(path, "is not a regular file")


def why(error: av.FFmpegError | OSError) -> str:
    """The cause of one of READ_ERRORS, in one line."""
    return error.strerror or str(error).partition("\n")[0] or "cannot be read"


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream from the current position of the file to its end.

    The last one is empty: it ends decoding.
    """
    try:
        yield from container.demux(stream)
    except IndexError:
        # A damaged MPEG-TS file can announce another stream while it is read. PyAV ends all streams
        # after the last packet, and fails at this one, which comes after `stream`.
        return


class RgbConverter:
    """Convert decoded frames to RGB: uint8 (H, W, 3), with the display matrix of the file applied.

    All frames are scaled to one size: `size` (width and height), or that of the frame that `start`
    was given, or else that of the first frame. Only files whose frames change their size are
    scaled.
    """

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        # Each frame has a reformatter of its own, but that one starts a thread for every core.
        self._reformatter = VideoReformatter()
        self._size = size

    def start(self, frame: av.VideoFrame) -> None:
        """Take the first frame of a file, whose size all frames get."""
        if self._size is None:
            self._size = (frame.width, frame.height)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        self.start(frame)
        assert self._size is not None
        width, height = self._size
        rgb = self._reformatter.reformat(frame, width, height, format="rgb24", threads=1)
        # The array refers to the memory of the converted frame, whose rows may be padded.
        strides = (rgb.planes[0].line_size, 3, 1)
        pixels = np.ndarray(
            (height, width, 3), np.uint8, memoryview(rgb.planes[0]), strides=strides
        )
        return _oriented(pixels, frame)


def _oriented(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Apply the display matrix of a frame, rounded to quarter turns and mirroring.

    The pixel at column x and row y of the stored frame is shown at column a x + c y and row
    b x + d y, up to a shift.
    """
    # `frame.side_data` would make a cycle of references, which keeps the frame in memory.
    for data in SideDataContainer(frame):  # type: ignore[call-arg]  # not in its stub
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            if abs(a) + abs(d) >= abs(b) + abs(c):
                right, down = a, d
            else:
                pixels, right, down = pixels.transpose(1, 0, 2), c, b
            return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return pixels
