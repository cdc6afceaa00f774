"""Entries of a file: key frames from which decoding gives the frames of decoding from the start.

Containers such as AVI and MPEG-TS, and codecs such as MPEG-4 part 2, have no index that can be
trusted. Their entries are found by trying: every frame after a seek is compared with the frame that
decoding from the start gives. This decodes a file twice, once for all readers.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from nlnet.data.decoding.container import RgbConverter, open_video_stream, read_packets
from nlnet.data.decoding.damage import is_key

MIN_FRAMES = 8  # from one entry to the next
MOST_FAILURES = 3  # entries that give other frames, after which no further one is tried
Decode = Callable[[av.Packet], list[av.VideoFrame]]


def frames_from_entry(
    container: InputContainer, stream: VideoStream, time: int, decode: Decode
) -> Iterator[av.VideoFrame]:
    """The frames from the key frame with this time on; none if it is not found."""
    container.seek(time, stream=stream)
    # Decoders copy the time stamp of a packet to its frame. Here it is the place of the packet, so
    # that the frame of the first packet can be told from those that are shown before it.
    place, is_shown = 0, False
    for packet in read_packets(container, stream):
        if packet.size == 0:
            if place == 0:
                return
        elif place > 0 or (packet.is_keyframe and time in (packet.dts, packet.pts)):
            packet.pts = place
            place += 1
        else:
            continue
        for frame in decode(packet):
            is_shown = is_shown or (frame.pts == 0 and is_key(frame))
            if is_shown:
                yield frame


class EntryRecorder:
    """Finds the entries of a file while it is decoded from its start, and then tries them.

    `packet` is called with each packet before it is decoded, `frame` with each frame.
    """

    def __init__(self) -> None:
        self._rgb = RgbConverter()
        self._times: list[int | None] = []  # of the packets; None if decoding cannot start there
        self._digests: list[int] = []  # of the frames
        self._entries: list[tuple[int, int]] = []  # number of a frame, time of its packet
        self._sizes: set[tuple[int, int]] = set()

    def packet(self, packet: av.Packet) -> None:
        """Number the next packet."""
        if packet.size:
            time = packet.pts if packet.dts is None else packet.dts
            packet.pts = len(self._times)
            self._times.append(time if packet.is_keyframe else None)

    def frame(self, frame: av.VideoFrame) -> None:
        """Add the next frame."""
        number = len(self._digests)
        self._sizes.add((frame.width, frame.height))
        self._digests.append(self._digest(frame))
        in_range = frame.pts is not None and 0 <= frame.pts < len(self._times)
        time = self._times[frame.pts] if in_range and is_key(frame) else None
        if time is not None and number >= self._next_number():
            self._entries.append((number, time))

    def verified(self, path: Path, seconds: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The numbers and the times of the entries that give the same frames.

        Entries that cannot be tried within `seconds` are left out.
        """
        counts = Counter(time for _, time in self._entries)
        entries = [entry for entry in self._entries if counts[entry[1]] == 1]
        if len(self._sizes) != 1 or not entries:
            return (), ()
        ends = [number for number, _ in entries[1:]] + [len(self._digests)]
        deadline = monotonic() + seconds
        good: list[tuple[int, int]] = []
        failures = 0
        container, stream = open_video_stream(path, path)
        with container:
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            for i in sorted(range(len(entries)), key=_spread):
                if self._is_exact(container, stream, entries[i], ends[i], deadline):
                    good.append(entries[i])
                else:
                    failures += 1
                if failures == MOST_FAILURES or monotonic() >= deadline:
                    break
        good.sort()
        return tuple(number for number, _ in good), tuple(time for _, time in good)

    def _next_number(self) -> int:
        return (self._entries[-1][0] if self._entries else 0) + MIN_FRAMES

    def _is_exact(
        self,
        container: InputContainer,
        stream: VideoStream,
        entry: tuple[int, int],
        end: int,
        deadline: float,
    ) -> bool:
        """Whether decoding from an entry gives the frames up to `end`."""
        number, time = entry
        try:
            for frame in frames_from_entry(container, stream, time, stream.codec_context.decode):
                if number == end:  # a frame too many at the end of the file
                    return end < len(self._digests)
                is_same = not frame.is_corrupt and self._digest(frame) == self._digests[number]
                if not is_same or monotonic() >= deadline:
                    return False
                number += 1
                if number == end < len(self._digests):
                    return True
        except (av.FFmpegError, OSError):
            return False
        return number == end

    def _digest(self, frame: av.VideoFrame) -> int:
        return zlib.crc32(self._rgb(frame).tobytes())


def _spread(i: int) -> int:
    """A key that sorts 0, 1, 2, ... so that any first part of the result is evenly spaced."""
    return -(i & -i) if i else -(2**63)
