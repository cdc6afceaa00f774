"""Reading video files with PyAV.

Time stamps are used only to find the key frame from which to decode, and only in files where they
are reliable. There, every decoded frame must have the time that the container declared for it;
otherwise the file is read again from its first frame. Declared frame counts are never trusted.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from nlnet.data.decoding.container import RgbConverter, open_video_stream
from nlnet.data.decoding.reader import DecodeError, FrameCountError, VideoReader

# In these containers a packet has the time at which its frame is shown (AVI, for example, has only
# the order of decoding). In these codecs a packet is one shown frame (VP8 has hidden frames).
INDEXED_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
INDEXED_CODECS = frozenset({"h264", "hevc", "vp9", "av1"})


class _IndexMismatch(Exception):
    """Decoding after a seek did not give the declared frame."""


class _FrameIndex(NamedTuple):
    times: list[int]  # when each frame is shown, rising, in units of the stream's time base
    keys: list[int]  # the numbers of the frames from which decoding can start


class PyAVReader(VideoReader):
    """A reader that decodes with FFmpeg through PyAV.

    Only the wanted frames, and those between them and the key frames before them, are decoded.
    `num_decoded` counts the frames decoded so far, as a measure of cost. Decoding uses one thread,
    because the loader runs several processes.

    Args:
        path: the file; with `file`, only the name of the video in messages
        file: a seekable file-like object that is read instead of the file at `path`
    """

    def __init__(self, path: Path, file: BinaryIO | None = None) -> None:
        self.path = path
        self.num_decoded = 0
        self._file = file
        self._rgb = RgbConverter()
        self._open()
        try:
            self._index = self._declared_index()
            self.num_frames = len(self._index.times) if self._index else self._count()
        except DecodeError:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if wanted.size == 0 or wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise IndexError(f"{self.path}: frames {indices} of {self.num_frames}")
        if self._index:
            try:
                return self._gather(self._seek_frames(wanted.tolist(), self._index), places)
            except (_IndexMismatch, DecodeError):
                self._drop_index()
        return self._gather(self._first_frames(wanted.tolist()), places)

    def _open(self) -> None:
        if self._file is not None:
            self._file.seek(0)
        source = self.path if self._file is None else self._file
        self._container, stream = open_video_stream(source, self.path)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        self._stream = stream

    def _declared_index(self) -> _FrameIndex | None:
        """Times and key frames as the container declares them; None if they are unreliable."""
        if (
            self._container.format.name not in INDEXED_CONTAINERS
            or self._stream.codec_context.codec.canonical_name not in INDEXED_CODECS
        ):
            return None
        times, key_times = [], []
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.is_corrupt or packet.pts is None:
                    return None
                times.append(packet.pts)
                if packet.is_keyframe:
                    key_times.append(packet.pts)
        except av.FFmpegError:
            return None  # decoding finds the same damage and counts the frames before it
        # Frames before the first key frame, in shown or in decoded order, cannot be decoded.
        starts_with_key = bool(times) and key_times[:1] == [min(times)] == times[:1]
        if not starts_with_key or len(set(times)) < len(times):
            return None
        times.sort()
        return _FrameIndex(times, [bisect_left(times, key) for key in sorted(key_times)])

    def _drop_index(self) -> None:
        self._index = None
        declared, self.num_frames = self.num_frames, self._count()
        if self.num_frames != declared:
            cause = f"{self.num_frames} frames decode, {declared} are declared"
            raise FrameCountError(self.path, cause)

    def _count(self) -> int:
        count = sum(1 for _ in self._all_frames())
        if count == 0:
            raise DecodeError(self.path, "no frame can be decoded")
        return count

    def _decode(self) -> Iterator[av.VideoFrame]:
        """The frames from the current position of the file to its end."""
        before = self.num_decoded
        try:
            for frame in self._container.decode(self._stream):
                self.num_decoded += 1
                yield frame
        except av.FFmpegError as error:
            count = self.num_decoded - before
            raise DecodeError(self.path, f"{error.strerror} after {count} frames") from error

    def _all_frames(self) -> Iterator[av.VideoFrame]:
        # Opening the file again is the only way to the first frame that works for every format.
        self.close()
        self._open()
        return self._decode()

    def _first_frames(self, wanted: list[int]) -> Iterator[av.VideoFrame]:
        """The wanted frames (rising numbers), decoding from the first frame of the file."""
        numbers = iter(wanted)
        number = next(numbers, None)
        for i, frame in enumerate(self._all_frames()):
            if i == number:
                yield frame
                number = next(numbers, None)
            if number is None:
                return

    def _seek_frames(self, wanted: list[int], index: _FrameIndex) -> Iterator[av.VideoFrame]:
        """The wanted frames (rising numbers), decoding from the key frames before them."""
        following = -1  # number of the frame that decoding gives next; -1 before the first seek
        frames: Iterator[av.VideoFrame] = iter(())
        for number in wanted:
            key = index.keys[bisect_right(index.keys, number) - 1]
            if following < key or following < 0:
                frames, following = self._seek(index.times[key]), key
            for frame in frames:
                time = index.times[following]
                if following == key and frame.pts is not None and frame.pts < time:
                    continue  # the seek ended at an earlier frame
                if frame.pts != time or frame.is_corrupt:
                    raise _IndexMismatch
                following += 1
                if following > number:
                    yield frame
                    break
            else:
                raise _IndexMismatch

    def _seek(self, time: int) -> Iterator[av.VideoFrame]:
        try:
            self._container.seek(time, stream=self._stream)
        except av.FFmpegError as error:
            raise _IndexMismatch from error
        return self._decode()

    def _gather(self, frames: Iterator[av.VideoFrame], places: np.ndarray) -> np.ndarray:
        """Copy frame k to each position i with `places[i] == k`: (n, H, W, 3)."""
        out = np.empty(0, np.uint8)
        for k, frame in enumerate(frames):
            rgb = self._rgb(frame)
            if k == 0:
                out = np.empty((len(places), *rgb.shape), np.uint8)
            elif rgb.shape != out.shape[1:]:
                cause = f"the frame size changes from {out.shape[1:3]} to {rgb.shape[:2]}"
                raise DecodeError(self.path, cause)
            out[places == k] = rgb
        return out
