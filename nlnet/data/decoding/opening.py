"""The decoder of video files. Streams are opened in nlnet/recognizer/inputs.py."""

from pathlib import Path
from typing import BinaryIO

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import VideoReader

DECODE_SECONDS = 300.0  # of CPU time for one video


def open_video(
    path: Path, file: BinaryIO | None = None, *, decode_seconds: float = DECODE_SECONDS
) -> VideoReader:
    """Open a video for access to any frame.

    `file` is an open binary file that can seek; `path` is then only its name in messages. Raises
    DecodeError if it has no readable video, or if it needs more CPU time than `decode_seconds`.
    """
    return PyAVReader(path, file, decode_seconds=decode_seconds)
