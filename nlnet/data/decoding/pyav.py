"""Reading video files with PyAV.

Time stamps are used only to find the key frame from which to decode, and only in files where they
are reliable. There, every decoded frame must have the time that the container declared for it;
otherwise the file is read again from its first frame. Declared frame counts are never trusted.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from time import thread_time
from typing import BinaryIO

import av
import numpy as np

from nlnet.data.decoding.container import RgbConverter, open_video_stream, read_packets
from nlnet.data.decoding.damage import HeldFrames, is_key
from nlnet.data.decoding.droppable import droppable_packets
from nlnet.data.decoding.frame_index import FrameIndex, Run, mean_rate, read_frame_index
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
    """

    def __init__(
        self, path: Path, file: BinaryIO | None = None, *, decode_seconds: float = math.inf
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
            self._index = self._declared_index()
            self.num_frames = len(self._index.times) if self._index else self._count()
            self.rate = mean_rate(self._stream, self._index)
        except DecodeError:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def _frames(self, wanted: list[int]) -> Iterator[np.ndarray]:
        given = 0
        if self._index:
            try:
                for frame in self._seek_frames(wanted, self._index):
                    yield self._rgb(frame)
                    given += 1
                return
            except (_IndexMismatch, DecodeError):
                self._drop_index()
        for frame in self._first_frames(wanted[given:]):
            yield self._rgb(frame)

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

    def _declared_index(self) -> FrameIndex | None:
        return read_frame_index(self._container, self._stream)

    def _drop_index(self) -> None:
        self._index = None
        declared, self.num_frames = self.num_frames, self._count()
        if self.num_frames != declared:
            cause = f"{self.num_frames} frames decode, {declared} are declared"
            raise FrameCountError(self.path, cause)

    def _count(self) -> int:
        """Decode all frames. Raises DecodeError if there is none, or if declared ones are lost."""
        expected = DeclaredFrames(self._container)
        count = sum(1 for _ in self._all_frames(expected.add))
        if count == 0:
            raise DecodeError(self.path, "no frame can be decoded")
        if count < expected.count:
            raise DecodeError(self.path, f"{count} of {expected.count} declared frames decode")
        return count

    def _all_frames(
        self, watch: Callable[[av.Packet], None] = lambda packet: None
    ) -> Iterator[av.VideoFrame]:
        """The frames of the file, decoded from its start; `watch` is called with each packet."""
        # Opening the file again is the only way to the first frame that works for every format.
        self.close()
        self._open()
        before = self.num_decoded
        try:
            for packet in read_packets(self._container, self._stream):
                watch(packet)
                yield from self._decode(packet)
        except av.FFmpegError as error:
            count = self.num_decoded - before
            raise DecodeError(self.path, f"{error.strerror} after {count} frames") from error

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
        """The wanted frames (rising numbers), decoding from the first frame of the file."""
        numbers = set(wanted)
        damaged = None  # the first damaged frame since the last key frame
        held = HeldFrames()
        for i, frame in enumerate(self._all_frames()):
            self._rgb.start(frame)
            if frame.is_corrupt:
                damaged = i if damaged is None else damaged
            elif is_key(frame):
                damaged = None
            if damaged is not None and (held or i in numbers):
                cause = f"frame {damaged} is damaged, and a wanted frame may depend on it"
                raise DecodeError(self.path, cause)
            yield from held.add(frame, i in numbers)
            if i >= wanted[-1] and not held:
                return
        yield from held.rest()

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
            for packet in read_packets(self._container, self._stream):
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
        except av.FFmpegError as error:
            raise _IndexMismatch from error
