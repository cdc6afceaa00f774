"""Reading video files with PyAV.

Time stamps are used only to find the key frame from which to decode, and only in files where they
are reliable. There, every decoded frame must have the time that the container declared for it;
otherwise the file is read again from its first frame. Declared frame counts are never trusted.
"""

import math
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from time import thread_time
from typing import BinaryIO

import av
import numpy as np

from nlnet.data.decoding.container import (
    READ_ERRORS,
    RgbConverter,
    open_video_stream,
    read_packets,
    why,
)
from nlnet.data.decoding.damage import HeldFrames, is_key
from nlnet.data.decoding.droppable import droppable_packets
from nlnet.data.decoding.entries import frames_from_entry
from nlnet.data.decoding.frame_index import (
    FrameIndex,
    Run,
    is_indexed,
    mean_rate,
    read_frame_index,
)
from nlnet.data.decoding.known import KnownFrames
from nlnet.data.decoding.reader import DecodeError, FrameCountError, VideoReader
from nlnet.data.decoding.truncation import DeclaredFrames, check_whole


class _IndexMismatch(Exception):
    """Decoding after a seek did not give the declared frame."""


class PyAVReader(VideoReader):
    """A reader that decodes with FFmpeg through PyAV.

    Only the wanted frames, and those between them and the key frames before them, are decoded.
    `num_decoded` counts the frames decoded so far, as a measure of cost. Decoding uses one thread,
    because the loader runs several processes.

    Args:
        path: the file; with `file`, only the name of the video in messages
        file: a seekable file-like object that is read instead of the file at `path`
        decode_seconds: CPU time after which decoding this file is given up
        known: what was measured about the file at `path` before; it is not used if the file has
            changed since
    """

    def __init__(
        self,
        path: Path,
        file: BinaryIO | None = None,
        *,
        decode_seconds: float = math.inf,
        known: KnownFrames | None = None,
    ) -> None:
        self.path = path
        self.num_decoded = 0
        self._decode_seconds = decode_seconds
        self._seconds_used = 0.0
        self._file = file
        self._rgb = RgbConverter()
        self._open()
        try:
            check_whole(path, file, self._container, self._stream)
            is_same = known is not None and (file is not None or known.describes(path))
            self._known = known if is_same else None
            self._index = self._declared_index()
            self.num_frames = self._first_count()
            if self._known and self.num_frames < self._known.num_frames:
                cause = f"has {self.num_frames} frames, but had {self._known.num_frames} before"
                raise DecodeError(path, f"{cause}; its bytes have changed")
            self.rate = mean_rate(self._stream, self._index)
        except DecodeError:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        given = 0
        if self._index or self._known:
            try:
                for frame in self._sought_frames(wanted):
                    yield self._rgb(frame)
                    given += 1
                return
            except (_IndexMismatch, DecodeError):
                self._drop_index()
        for frame in self._first_frames(wanted[given:]):
            yield self._rgb(frame)

    def _sought_frames(self, wanted: list[int]) -> Iterator[av.VideoFrame]:
        if self._index:
            return self._seek_frames(wanted, self._index)
        assert self._known is not None
        return self._entry_frames(wanted, self._known)

    def _open(self) -> None:
        if self._file is not None:
            self._file.seek(0)
        source = self.path if self._file is None else self._file
        self._container, stream = open_video_stream(source, self.path)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        codec = stream.codec_context.codec.canonical_name
        self._is_droppable = droppable_packets(codec, stream.codec_context.extradata)
        self._declared_size = stream.codec_context.width, stream.codec_context.height
        self._stream = stream
        self._is_unread = True  # the next packet is the first of the file

    def _reopen(self) -> None:
        """Go to the first frame. Opening the file again is the only way that always works."""
        self.close()
        self._open()

    def _packets(self) -> Iterator[av.Packet]:
        self._is_unread = False
        return read_packets(self._container, self._stream)

    def _declared_index(self) -> FrameIndex | None:
        codec = self._stream.codec_context.codec.canonical_name
        if not is_indexed(self._container.format.name, codec):
            return None
        return read_frame_index(self._packets())

    def _first_count(self) -> int:
        if self._index:
            return len(self._index.times)
        return self._known.num_frames if self._known else self._count()

    def _drop_index(self) -> None:
        """Read the file from its start from now on."""
        if self._index is None:  # reading from the start finds whether the known number is wrong
            self._known = None
            return
        self._index = self._known = None
        declared, self.num_frames = self.num_frames, self._count()
        if self.num_frames != declared:
            cause = f"{self.num_frames} frames decode, {declared} are declared"
            raise FrameCountError(self.path, cause)

    def _count(self) -> int:
        """Decode all frames. Raises DecodeError if there is none, or if declared ones are lost."""
        if not self._is_unread:
            self._reopen()
        expected = DeclaredFrames(self._container, self._stream)
        count = sum(1 for _ in self._all_frames(expected.add))
        if count == 0:
            raise DecodeError(self.path, "no frame can be decoded")
        if cause := expected.lost(count):
            raise DecodeError(self.path, cause)
        return count

    def _all_frames(
        self, watch: Callable[[av.Packet], None] = lambda packet: None
    ) -> Iterator[av.VideoFrame]:
        """The frames of the file, decoded from its start; `watch` is called with each packet."""
        if not self._is_unread:
            self._reopen()
        before = self.num_decoded
        try:
            for packet in self._packets():
                watch(packet)
                yield from self._decode(packet)
        except READ_ERRORS as error:
            count = self.num_decoded - before
            raise DecodeError(self.path, f"{why(error)} after {count} frames") from error

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that follow from the next packet; None at the end of the packets."""
        start = thread_time()
        frames = self._stream.codec_context.decode(packet)
        self._seconds_used += thread_time() - start
        if self._seconds_used > self._decode_seconds:
            cause = f"decoding takes more than decode_seconds={self._decode_seconds:g} of CPU time"
            raise DecodeError(self.path, cause)
        self.num_decoded += len(frames)
        return frames

    def _first_frames(self, wanted: list[int]) -> Iterator[av.VideoFrame]:
        """The wanted frames (rising numbers), decoding from the first frame of the file.

        Raises FrameCountError if the file ends before the last of them.
        """
        count = yield from self._chosen(0, self._all_frames(), wanted)
        if count <= wanted[-1]:
            if count == 0:
                raise DecodeError(self.path, "no frame can be decoded")
            cause = f"{count} frames decode, not {self.num_frames} as before"
            self.num_frames = count
            raise FrameCountError(self.path, cause)

    def _entry_frames(self, wanted: list[int], known: KnownFrames) -> Iterator[av.VideoFrame]:
        """The wanted frames (rising numbers), decoding from the known entries before them."""
        for run in known.runs(wanted):
            frames = self._all_frames() if run.entry < 0 else self._from_entry(run.entry, known)
            if (yield from self._chosen(run.first, frames, run.wanted)) <= run.wanted[-1]:
                raise _IndexMismatch

    def _from_entry(self, entry: int, known: KnownFrames) -> Iterator[av.VideoFrame]:
        self._is_unread = False
        time = int(known.entry_times[entry])
        try:
            yield from frames_from_entry(self._container, self._stream, time, self._decode)
        except READ_ERRORS as error:
            raise _IndexMismatch from error

    def _chosen(
        self, first: int, frames: Iterator[av.VideoFrame], wanted: list[int]
    ) -> Generator[av.VideoFrame, None, int]:
        """The wanted ones of the frames, whose numbers count from `first`; returns the next number.

        Stops after the last wanted frame. Raises DecodeError for damage that may affect one.
        """
        numbers = set(wanted)
        damaged = None  # the first damaged frame since the last key frame
        held = HeldFrames()
        number = first
        for frame in frames:
            self._rgb.start(frame)
            if frame.is_corrupt:
                damaged = number if damaged is None else damaged
            elif is_key(frame):
                damaged = None
            if damaged is not None and (held or number in numbers):
                cause = f"frame {damaged} is damaged, and a wanted frame may depend on it"
                raise DecodeError(self.path, cause)
            yield from held.add(frame, number in numbers)
            number += 1
            if number > wanted[-1] and not held:
                return number
        yield from held.rest()
        return number

    def _seek_frames(self, wanted: list[int], index: FrameIndex) -> Iterator[av.VideoFrame]:
        """The wanted frames (rising numbers), decoding from the key frames before them.

        Each frame must have the time that is declared for it.
        """
        for run in index.runs(wanted):
            sent: set[int | None] = set()  # times of the packets that were decoded
            numbers = set(run.wanted)
            last = run.wanted[-1]
            following = run.key  # number of the frame that decoding gives next
            held = HeldFrames()
            for frame in self._run(run, index, sent):
                if frame.pts is not None and frame.pts < index.times[run.key]:
                    continue  # it is shown before the key frame
                while following < last and following not in numbers:
                    if index.times[following] in sent:
                        break
                    following += 1
                is_declared = following > last or frame.pts == index.times[following]
                is_first_size = (frame.width, frame.height) == self._declared_size
                if frame.is_corrupt or not is_declared or not is_first_size:
                    raise _IndexMismatch
                yield from held.add(frame, following in numbers)
                following += 1
                if following > last and not held:
                    break
            if following <= last:
                raise _IndexMismatch
            yield from held.rest()

    def _run(self, run: Run, index: FrameIndex, sent: set[int | None]) -> Iterator[av.VideoFrame]:
        """The frames of the packets of a run, without those on which no wanted frame depends."""
        start = index.positions[index.times[run.key]]
        wanted: set[int | None] = {index.times[number] for number in run.wanted}
        try:
            self._container.seek(index.times[run.key], stream=self._stream)
            for packet in self._packets():
                time = packet.pts
                position = -1 if time is None else index.positions.get(time, -1)
                if position > run.last:
                    break
                if position < start and (position >= 0 or not sent):
                    continue  # the seek ended before the key frame
                if time not in wanted and self._is_droppable(memoryview(packet)):
                    continue
                sent.add(time)
                yield from self._decode(packet)
            yield from self._decode(None)
        except READ_ERRORS as error:
            raise _IndexMismatch from error
