"""Damaged frames, and the frames that may depend on them."""

from collections.abc import Iterator

import av
from av.video.frame import PictureType

MOST_HELD = 16  # frames; no decoder of the common codecs keeps more


def is_key(frame: av.VideoFrame) -> bool:
    """Whether no later frame depends on a frame before this one."""
    return frame.key_frame and frame.pict_type in (PictureType.I, PictureType.NONE)


class HeldFrames:
    """Wanted frames that may depend on a frame which is shown after them.

    Decoders report damage with the damaged frame. A frame of type B that refers to it can be shown
    before it, so such frames are kept until a frame of another type has come.
    """

    def __init__(self) -> None:
        self._frames: list[tuple[int, av.VideoFrame]] = []  # with the number of the frame
        self._count = 0  # of frames so far

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frame: av.VideoFrame, is_wanted: bool) -> Iterator[av.VideoFrame]:
        """Add the next undamaged frame; give the wanted frames that are certain by now."""
        if is_wanted:
            self._frames.append((self._count, frame))
        self._count += 1
        is_last = frame.pict_type != PictureType.B
        while self._frames and (is_last or self._frames[0][0] < self._count - MOST_HELD):
            yield self._frames.pop(0)[1]

    def rest(self) -> Iterator[av.VideoFrame]:
        """The frames that are still held, when no frame follows."""
        while self._frames:
            yield self._frames.pop(0)[1]
