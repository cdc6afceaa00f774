"""Whether a file has all frames that its container declares."""

import io
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from nlnet.data.decoding.reader import DecodeError

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # FFmpeg's name of the format
EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")  # Matroska and WebM
MIN_BYTES = 20  # of a packet that certainly gives a frame
HEAD = 4096  # bytes in which the sizes are
RIFF_SLACK = 9  # bytes; some writers count the header of 8 bytes, and leave out the padding


class DeclaredFrames:
    """Count the frames that an MP4 file declares from the first key frame on; 0 in other files.

    Frames that are shown before the key frame may lack what they depend on. Packets of some bytes
    say that a frame repeats the one before; they give no frame.
    """

    def __init__(self, container: InputContainer) -> None:
        self.count = 0
        self._is_declared = container.format.name == MP4
        self._start: int | None = None  # time of the first key frame

    def add(self, packet: av.Packet) -> None:
        """Count the next packet."""
        if not self._is_declared or packet.pts is None or packet.is_discard:
            return
        if self._start is None and packet.is_keyframe:
            self._start = packet.pts
        if self._start is not None and packet.pts >= self._start and packet.size >= MIN_BYTES:
            self.count += 1


def check_whole(
    path: Path, file: BinaryIO | None, container: InputContainer, stream: VideoStream
) -> None:
    """Raise DecodeError if the end of a file is missing.

    MP4 says where each frame is, Matroska and AVI say how long they are. Other containers, and
    files that do not say it, are not checked.
    """
    if container.format.name == MP4:
        size = path.stat().st_size if file is None else file.seek(0, io.SEEK_END)
        entries = stream.index_entries
        present = sum(entry.pos + entry.size <= size for entry in entries)
        if present < len(entries):
            cause = f"is cut short after {present} frames; it declares {len(entries)}"
            raise DecodeError(path, cause)
        return
    if file is None:
        with path.open("rb") as opened:
            size, declared = _sizes(opened)
    else:
        size, declared = _sizes(file)
    if size < declared:
        raise DecodeError(path, f"is cut short after {size} of {declared} bytes")


def _sizes(file: BinaryIO) -> tuple[int, int]:
    """The bytes of a file, and those that it declares; 0 if it does not."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(b"RIFF"):
        return size, int.from_bytes(head[4:8], "little") + 8 - RIFF_SLACK
    if head.startswith(EBML) and SEGMENT in head:
        start = head.index(SEGMENT) + len(SEGMENT)
        length = 9 - head[start].bit_length()  # leading zero bits say how long the number is
        number = int.from_bytes(head[start : start + length], "big") & (1 << 7 * length) - 1
        is_known = number < (1 << 7 * length) - 1
        return size, start + length + number if is_known else 0
    return size, 0
