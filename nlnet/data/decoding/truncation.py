"""Whether a file has all frames and all bytes that its container declares.

A download that stopped often still opens and decodes as a shorter video. The sizes that the outer
parts of the container declare show it without decoding.
"""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from nlnet.data.decoding.container import why
from nlnet.data.decoding.droppable import frame_packets
from nlnet.data.decoding.frame_index import is_indexed
from nlnet.data.decoding.reader import DecodeError

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # FFmpeg's name of the format
AVI = "avi"
MP4_BOXES = frozenset({b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"sidx"})
RIFF_SLACK = 9  # bytes; some writers count the header of 8 bytes, and leave out the padding
SEGMENT = b"\x18\x53\x80\x67"  # the element of Matroska that holds all others
HEAD = 4096  # bytes in which this element begins


class DeclaredFrames:
    """Count the frames that a file declares, before it is read, and while its packets are read.

    In MP4, and in Matroska with codecs whose packets are single frames, each packet from the first
    key frame on declares one. Frames that are shown before the key frame may lack what they depend
    on. AVI has a list of its packets. Other files declare nothing.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        form, codec = container.format.name, stream.codec_context.codec.canonical_name
        self._is_declared = form == MP4 or is_indexed(form, codec)
        self._is_frame = frame_packets(codec, stream.codec_context.extradata)
        self._listed = sum(each.size > 0 for each in stream.index_entries) if form == AVI else 0
        self._start: int | None = None  # time of the first key frame
        self._packets = self._frames = 0

    def add(self, packet: av.Packet) -> None:
        """Count the next packet."""
        self._packets += packet.size > 0
        if not self._is_declared or packet.pts is None or packet.is_discard or not packet.size:
            return
        if self._start is None and packet.is_keyframe:
            self._start = packet.pts
        if self._start is not None and packet.pts >= self._start:
            self._frames += self._is_frame(memoryview(packet))

    def lost(self, decoded: int) -> str:
        """What is lost, after all packets, if `decoded` frames decode; empty if nothing is."""
        if decoded < self._frames:
            return f"{decoded} of {self._frames} declared frames decode"
        if self._packets < self._listed:
            return f"{self._packets} of {self._listed} listed packets are found"
        return ""


def check_whole(
    path: Path, file: BinaryIO | None, container: InputContainer, stream: VideoStream
) -> None:
    """Raise DecodeError if the end of a file is missing, and if the file cannot be read.

    MP4 says where each frame is, Matroska and AVI say how long they are. Other containers, and
    files that do not say it, are not checked. The position in `file`, from which FFmpeg reads on,
    stays the same.
    """
    try:
        if file is None:  # it may have vanished since FFmpeg opened it
            with path.open("rb") as opened:
                cause = _missing_end(opened, container, stream)
        else:
            position = file.tell()
            try:
                cause = _missing_end(file, container, stream)
            finally:
                file.seek(position)
    except OSError as error:
        raise DecodeError(path, why(error)) from error
    if cause:
        raise DecodeError(path, f"is cut short after {cause}")


def _missing_end(file: BinaryIO, container: InputContainer, stream: VideoStream) -> str:
    """What is there of a file whose end is missing; empty if the file is whole."""
    size = file.seek(0, io.SEEK_END)
    if container.format.name == MP4:
        entries = stream.index_entries
        if len(entries) > size:  # no table that can be true; reading all of it would take minutes
            return f"{size} bytes; it declares {len(entries)} frames"
        present = sum(entry.pos + entry.size <= size for entry in entries)
        return f"{present} frames; it declares {len(entries)}" if present < len(entries) else ""
    missing = missing_bytes(file)
    return f"{size} of {size + missing} bytes" if missing else ""


def missing_bytes(file: BinaryIO) -> int:
    """How many bytes the container declares after the end of the file; 0 if it is whole.

    It is 0, too, for containers that declare no size (MPEG-TS, streams written live).
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(12)
    for matches, declared_end in _CONTAINERS:
        if matches(start):
            file.seek(0)
            return max(declared_end(file, size) - size, 0)
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
    head = file.read(HEAD)
    at = head.find(SEGMENT) + len(SEGMENT)
    if at < len(SEGMENT) or at >= len(head):
        return size
    width = 9 - head[at].bit_length()  # the number of leading zeros says how many bytes follow
    length = int.from_bytes(head[at : at + width], "big") & ~(1 << 7 * width)
    unknown = (1 << 7 * width) - 1  # written live
    return size if length == unknown or width > 8 else at + width + length


# How a file begins, and the end that it declares.
_CONTAINERS: list[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], int]]] = [
    (lambda start: start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"), _mp4_end),
    (lambda start: start[:4] == b"RIFF" and start[8:12] == b"AVI ", _riff_end),
    (lambda start: start[:4] == b"\x1a\x45\xdf\xa3", _matroska_end),
]
