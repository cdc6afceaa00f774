"""Windows of time over a stream of frames, in bounded memory."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from nlnet.data.clip_sampling import FixedClips
from nlnet.data.decoding.stream import Frame, FrameStream
from nlnet.data.views import ClipFrames, Transform, read_views, stack_views, wanted_numbers
from nlnet.errors import UserError

TOLERANCE = 1e-6  # seconds; times are rounded
MAX_BYTES = 2**31  # of the frames of one window


class FrameWindow(NamedTuple):
    """The frames of [start, end), in seconds since the first frame of the source."""

    start: float
    end: float
    frames: tuple[Frame, ...]  # at least one


def windows(stream: FrameStream, window: float, step: float) -> Iterator[FrameWindow]:
    """Windows of `window` seconds, at 0, `step`, 2 `step`, ... seconds.

    Only the frames of one window are in memory. If the video does not end with a window, the last
    window is shorter. Windows without frames are left out.

    Raises:
        DecodeError: the stream is damaged.
        UserError: the frames of a window are larger than MAX_BYTES.
    """
    held: deque[Frame] = deque()
    num_bytes = 0
    number = 0  # of the window that is being filled
    covered = -1.0  # time of the last frame that was in a window
    for frame in stream:
        while frame.time >= number * step + window - TOLERANCE:
            if held:
                covered = held[-1].time
                yield FrameWindow(number * step, number * step + window, tuple(held))
                number += 1
            else:  # no frames for a while: go on with the first window that has this frame
                number = max(math.floor((frame.time - window + TOLERANCE) / step), number) + 1
            while held and held[0].time < number * step - TOLERANCE:
                num_bytes -= held.popleft().num_bytes
        if frame.time >= number * step - TOLERANCE:
            held.append(frame)
            num_bytes += frame.num_bytes
        if num_bytes > MAX_BYTES:
            raise UserError(
                f"{stream.path}: {len(held)} frames of one window need more than "
                f"{MAX_BYTES / 2**30:.0f} GiB; give a shorter window"
            )
    if held and held[-1].time > covered:
        end = min(number * step + window, held[-1].time + 1 / stream.rate)
        yield FrameWindow(number * step, end, tuple(held))


@dataclass(frozen=True)
class WindowViews:
    """The views of a window: as many clips as cover it, side by side, and the crops of each.

    `clips` gives the protocol. `covers_all` says that one clip covers a video of any length.
    """

    clips: FixedClips
    transform: Transform
    covers_all: bool
    target_fps: float | None = None  # the rate of the frames of the protocol; None: of the video

    @property
    def span(self) -> int:
        """The number of frames that a clip covers."""
        return self.clips.shape.span

    def seconds(self, rate: float) -> float:
        """The time that a clip covers in a video of `rate` frames per second."""
        return self.span / (self.target_fps or rate)

    def __call__(self, window: FrameWindow, stream: FrameStream) -> Tensor:
        """Views (V, 3, T, S, S) uint8. Only the frames that the clips take are converted."""
        length = len(window.frames)
        clips = self.clips
        if self.target_fps is not None:
            clips = clips.times(stream.rate / self.target_fps)
        num_clips = 1 if self.covers_all else max(round(length / clips.shape.span), 1)
        unused = np.random.default_rng(0)  # views of held-out videos are not random
        numbers = replace(clips, num_clips=num_clips)(length, unused)
        wanted = [ClipFrames(clip, unused) for clip in numbers]
        frames = (window.frames[i].pixels() for i in wanted_numbers(wanted))
        return stack_views(read_views(frames, wanted, self.transform))

    def over(
        self, stream: FrameStream, window: float | None, step: float | None, *, overlap: float = 0.5
    ) -> Iterator[tuple[FrameWindow, Tensor]]:
        """Each window of a stream, and its views.

        Args:
            window: length in seconds; None is the length of a clip
            step: seconds from one window to the next; None is `overlap` of a window
        """
        length = window or self.seconds(stream.rate)
        for part in windows(stream, length, step or overlap * length):
            yield part, self(part, stream)
