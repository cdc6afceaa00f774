"""The decoder of video files. Streams are opened in nlnet/recognizer/inputs.py."""

from pathlib import Path
from typing import BinaryIO

from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import VideoReader


def open_video(path: Path, file: BinaryIO | None = None) -> VideoReader:
    """Open a video for access to any frame.

    `file` is an open binary file that can seek; `path` is then only its name in messages. Raises
    DecodeError if it has no readable video.
    """
    return PyAVReader(path, file)
