"""Windows over a stream, against a plain definition; and how much of a stream is in memory."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nlnet.data import windows as windows_file
from nlnet.data.clip_sampling import ClipShape, FixedClips, choose_protocol
from nlnet.data.decoding.stream import Frame, FrameStream
from nlnet.data.transforms import EvalTransform
from nlnet.data.windows import FrameWindow, WindowViews, windows
from nlnet.errors import UserError


class TimedStream(FrameStream):
    """Frames with these times. Frame i has the level i; `most` counts the frames in use."""

    path = Path("timed")
    is_live = False

    def __init__(self, times: Sequence[float], rate: float, num_bytes: int = 1) -> None:
        self.times, self.rate, self.num_bytes = times, rate, num_bytes

    def __iter__(self) -> Iterator[Frame]:
        for i, time in enumerate(self.times):
            yield Frame(time, self.num_bytes, lambda i=i: np.full((2, 2, 3), i, np.uint8))

    def close(self) -> None:
        pass


def expected(times: Sequence[float], rate: float, window: float, step: float) -> list[tuple]:
    """The definition: window k has the frames of [k step, k step + window)."""
    found, covered = [], -1.0
    for k in itertools.count():
        start, end = k * step, k * step + window
        inside = [t for t in times if start - 1e-6 <= t < end - 1e-6]
        is_last = times[-1] < end - 1e-6
        if not is_last and inside:
            found.append((start, end, inside))
            covered = inside[-1]
        if is_last:
            if inside and inside[-1] > covered:
                found.append((start, min(end, times[-1] + 1 / rate), inside))
            return found


CASES = {
    "even": ([i / 8 for i in range(40)], 8, 1.0, 0.5),
    "no overlap": ([i / 8 for i in range(40)], 8, 1.0, 1.0),
    "gaps between windows": ([i / 8 for i in range(40)], 8, 0.5, 2.0),
    "odd lengths": ([i / 30 for i in range(100)], 30, 0.73, 0.31),
    "shorter than a window": ([0, 0.1, 0.2], 10, 5.0, 1.0),
    "one frame": ([0.0], 10, 1.0, 0.5),
    "short windows": ([i / 8 for i in range(20)], 8, 0.05, 0.02),
    "a long pause": ([0, 0.1, 0.2, 1000.0, 1000.1], 10, 1.0, 0.5),
    "variable rate": (np.random.default_rng(3).exponential(0.1, 80).cumsum().tolist(), 10, 1, 0.4),
}


@pytest.mark.parametrize("name", CASES)
def test_windows_are_those_of_the_definition(name: str):
    times, rate, window, step = CASES[name]
    times = [time - times[0] for time in times]
    found = [
        (part.start, part.end, [frame.time for frame in part.frames])
        for part in windows(TimedStream(times, rate), window, step)
    ]
    assert found == expected(times, rate, window, step)
    if step <= window:
        assert {time for part in found for time in part[2]} == set(times)


def test_a_window_is_given_as_soon_as_the_next_frame_is_read():
    read = []

    class Watched(TimedStream):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                read.append(frame.time)
                yield frame

    first = next(windows(Watched([i / 8 for i in range(80)], 8), 1.0, 0.5))
    assert [len(first.frames), read[-1]] == [8, 1.0]


def test_a_window_that_does_not_fit_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(windows_file, "MAX_BYTES", 2**30)
    stream = TimedStream([i / 8 for i in range(80)], 8, num_bytes=2**26)
    assert len(list(windows(stream, 1.0, 1.0))) == 10
    with pytest.raises(UserError, match=r"^timed: [^\n]*1 GiB; give a shorter window$"):
        list(windows(stream, 4.0, 1.0))


@pytest.mark.parametrize(("length", "clips"), [(3, 1), (8, 1), (9, 1), (16, 2), (40, 5)])
def test_clips_cover_a_window_side_by_side(length: int, clips: int):
    protocol, rule = choose_protocol("dense", "loop")
    shape = ClipShape(4, 2)
    views = WindowViews(
        FixedClips(protocol, shape, rule, 1), EvalTransform(2, 2, 1), covers_all=False
    )
    stream = TimedStream([float(i) for i in range(length)], 1)
    window = FrameWindow(0, length, tuple(stream))
    found = views(window, stream)
    assert found.shape == (clips, 3, 4, 2, 2)
    numbers = [rule(clip, length) for clip in protocol.test(shape, length, clips)]
    assert np.array_equal(found[:, 0, :, 0, 0].numpy(), numbers)
    assert replace(views, covers_all=True)(window, stream).shape == (1, 3, 4, 2, 2)
