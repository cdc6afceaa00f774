"""The frames of a file as its container declares them, read without decoding.

Time stamps are used only to find the key frame from which to decode, and only in files where they
are reliable.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import av
from av.video.stream import VideoStream

from nlnet.data.decoding.container import READ_ERRORS

# In these containers a packet has the time at which its frame is shown (AVI, for example, has only
# the order of decoding). In these codecs a packet is one shown frame (VP8 has hidden frames).
INDEXED_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
MAX_RATE = 1000.0  # a higher declared rate is the clock of the time stamps
INDEXED_CODECS = frozenset({"h264", "hevc", "vp9", "av1"})


class Run(NamedTuple):
    """Frames that are decoded after one seek."""

    key: int  # the number of the key frame from which decoding starts
    last: int  # the place, in the file, of the last packet that is needed
    wanted: list[int]  # rising numbers


class FrameIndex(NamedTuple):
    """When each frame is shown, and where decoding can start. Frames count in shown order."""

    times: list[int]  # rising, in units of the stream's time base
    keys: list[int]  # the numbers of the frames from which decoding can start
    positions: dict[int, int]  # time of a frame -> the place of its packet among all packets

    def runs(self, wanted: list[int]) -> list[Run]:
        """The seeks that decode the fewest frames, for rising numbers.

        A seek follows if the key frame before a wanted frame comes later in the file than the
        packets that were needed so far.
        """
        found: list[Run] = []
        for number in wanted:
            key = self.keys[bisect_right(self.keys, number) - 1]
            last = self.positions[self.times[number]]
            if found and self.positions[self.times[key]] <= found[-1].last + 1:
                run = found[-1]
                run.wanted.append(number)
                found[-1] = run._replace(last=max(run.last, last))
            else:
                found.append(Run(key, last, [number]))
        return found


def mean_rate(stream: VideoStream, index: FrameIndex | None) -> float | None:
    """Frames per second: by the times of the frames, or else as declared; None if unknown."""
    if index is not None and len(index.times) > 1 and stream.time_base is not None:
        duration = (index.times[-1] - index.times[0]) * stream.time_base
        return float((len(index.times) - 1) / duration)
    declared = stream.average_rate or stream.guessed_rate
    return float(declared) if declared and 0 < declared <= MAX_RATE else None


def read_frame_index(packets: Iterable[av.Packet]) -> FrameIndex | None:
    """Times and key frames as the container declares them; None if they are unreliable.

    `packets` are all packets of a file in which they can be reliable: see `is_indexed`.
    """
    times, key_times = [], []
    try:
        for packet in packets:
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.is_corrupt or packet.pts is None:
                return None
            times.append(packet.pts)
            if packet.is_keyframe:
                key_times.append(packet.pts)
    except READ_ERRORS:
        return None  # decoding finds the same damage and counts the frames before it
    return make_frame_index(times, key_times)


def is_indexed(container: str, codec: str) -> bool:
    """Whether a packet of a file is one shown frame, with the time at which it is shown."""
    return container in INDEXED_CONTAINERS and codec in INDEXED_CODECS


def make_frame_index(times: list[int], key_times: list[int]) -> FrameIndex | None:
    """The index of packets with these times, in the order of the file; None if it is unreliable."""
    # Frames before the first key frame, in shown or in decoded order, cannot be decoded.
    starts_with_key = bool(times) and key_times[:1] == [min(times)] == times[:1]
    positions = {time: position for position, time in enumerate(times)}
    if not starts_with_key or len(positions) < len(times):
        return None
    shown = sorted(times)
    return FrameIndex(shown, [bisect_left(shown, key) for key in sorted(key_times)], positions)
