"""Whether a file ends before the end that its container announces.

A download that stopped often still opens and decodes as a shorter video. The sizes that the outer
boxes of the container announce show it without decoding.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MP4_BOXES = frozenset({b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"sidx"})
RIFF_SLACK = 9  # bytes; some writers count the header of 8 bytes, and leave out the padding
SEGMENT = b"\x18\x53\x80\x67"  # the element of Matroska that holds all others


def missing_bytes(path: Path) -> int:
    """How many bytes the container announces after the end of the file; 0 if it is whole.

    It is 0, too, for containers that announce no size (MPEG-TS, streams written live).
    """
    size = os.stat(path).st_size
    with path.open("rb") as file:
        start = file.read(12)
        for matches, announced_end in CONTAINERS:
            if matches(start):
                file.seek(0)
                return max(announced_end(file, size) - size, 0)
    return 0


def _mp4_end(file: BinaryIO, size: int) -> int:
    """The end of the last box that begins in the file. A box: 4 bytes size, 4 bytes type."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if at > 0 and kind not in MP4_BOXES:
            return size  # something that other programs append
        if length == 1:  # the size is in the next 8 bytes
            length = int.from_bytes(file.read(8), "big")
        if length < 8:  # 0: the box goes on to the end of the file
            return size
        at += length
    return max(at, size)


def _riff_end(file: BinaryIO, size: int) -> int:
    """The end of the last RIFF chunk of an AVI file; large files have several."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):
            return size
        at += 8 + length + length % 2
    return at if at > size + RIFF_SLACK else size


def _matroska_end(file: BinaryIO, size: int) -> int:
    """The end of the segment of a Matroska or WebM file."""
    head = file.read(256)
    at = head.find(SEGMENT) + len(SEGMENT)
    if at < len(SEGMENT) or at >= len(head):
        return size
    width = 9 - head[at].bit_length()  # the number of leading zeros says how many bytes follow
    length = int.from_bytes(head[at : at + width], "big") & ~(1 << 7 * width)
    unknown = (1 << 7 * width) - 1  # written live
    return size if length == unknown or width > 8 else at + width + length


# How a file begins, and the end that it announces.
CONTAINERS: list[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], int]]] = [
    (lambda start: start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"), _mp4_end),
    (lambda start: start[:4] == b"RIFF" and start[8:12] == b"AVI ", _riff_end),
    (lambda start: start[:4] == b"\x1a\x45\xdf\xa3", _matroska_end),
]
