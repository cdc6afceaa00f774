"""The decoders of videos: of files and of folders of frames.

Streams are opened in nlnet/recognizer/inputs.py.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from nlnet.data.decoding.frame_folder import FrameFolderReader
from nlnet.data.decoding.known import KnownFrames
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.reader import OpenVideo, VideoReader
from nlnet.data.decoding.torchcodec import TorchcodecReader, check_torchcodec
from nlnet.data.shards.by_name import open_in_shard
from nlnet.errors import choose

DECODE_SECONDS = 300.0  # of CPU time for one video


def open_video(
    path: Path,
    file: BinaryIO | None = None,
    *,
    decode_seconds: float = DECODE_SECONDS,
    known: KnownFrames | None = None,
) -> VideoReader:
    """Open a video for access to any frame: a file, a folder of frames, or shard/member.

    `file` is an open binary file that can seek; `path` is then only its name in messages. `known`
    is what was measured about the file before. Raises DecodeError if it has no readable video, or
    if it needs more CPU time than `decode_seconds`.
    """
    return _open(PyAVReader, decode_seconds, path, file, known=known)


def _torchcodec() -> type[PyAVReader]:
    check_torchcodec()
    return TorchcodecReader


# The readers of the files of a data set. A missing library is found when one is chosen.
DECODERS: dict[str, Callable[[], type[PyAVReader]]] = {
    "pyav": lambda: PyAVReader,
    "torchcodec": _torchcodec,
}


def choose_decoder(decoder: str) -> type[PyAVReader]:
    """The reader with a name of DECODERS; raises ArgumentError, and UserError for a library."""
    return choose("decoder", decoder, DECODERS)()


def video_opener(reader: type[PyAVReader], decode_seconds: float) -> OpenVideo:
    """Open files with a reader, and folders of frames; it can be sent to another process."""
    return partial(_open, reader, decode_seconds)


def _open(
    reader: type[PyAVReader],
    decode_seconds: float,
    path: Path,
    file: BinaryIO | None = None,
    *,
    known: KnownFrames | None = None,
) -> VideoReader:
    if file is None:
        if path.is_dir():
            return FrameFolderReader(path)
        if not path.exists():  # the name of a video in a shard
            file = open_in_shard(path)
    return reader(path, file, decode_seconds=decode_seconds, known=known)
