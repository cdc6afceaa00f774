"""Opening a video with FFmpeg, and the pixels of its frames. Both readers of videos use it."""

from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from nlnet.data.decoding.reader import DecodeError

TIMEOUT = 10.0  # seconds without data, after which a source on the network has failed


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
    if isinstance(source, Path):
        source = str(source)
    timeout = TIMEOUT if isinstance(source, str) and "://" in source else None
    try:
        # Text tags are not always UTF-8. They are not used here.
        container = av.open(source, format=form, metadata_errors="ignore", timeout=timeout)
    except (av.FFmpegError, OSError) as error:
        raise DecodeError(Path(name), error.strerror or "cannot be opened") from error
    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        container.close()
        raise DecodeError(Path(name), "no video stream")
    return container, stream


class RgbConverter:
    """Convert decoded frames to RGB: uint8 (H, W, 3), with the file's rotation applied."""

    def __init__(self) -> None:
        # Each frame has a reformatter of its own, but that one starts a thread for every core.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.rot90(rgb, round(frame.rotation / 90) % 4)
