"""What one run of bench=data measures."""

from collections.abc import Sequence
from typing import NamedTuple

from nlnet.bench.reading.readers import Work
from nlnet.bench.reading.training import Steps
from nlnet.data.clip_sampling import ClipShape


class ReadingRow(NamedTuple):
    """Clips that all readers read, and the ratios to reach."""

    name: str
    shape: ClipShape
    work: Work
    workers: int
    samples: int  # of a round
    num_clips: int | None = None  # clips of a video; None: one random clip
    x_peer: float | None = None  # wanted of the original files
    prepared_x_peer: float | None = None  # wanted of the prepared files, against the original
    prepared_x_ours: float | None = None


class ReadingPlan(NamedTuple):
    """Sizes and repetitions; the largest plan takes most of an hour on two cores."""

    videos: int
    num_frames: int  # of a video
    crop_size: int
    rounds: int
    rows: Sequence[ReadingRow]
    training: dict[str, Steps]  # by network


SHORT, LONG = ClipShape(8, 8), ClipShape(32, 2)
SIDE = 224
VIEW, FRAMES, TEST = Work(SIDE), Work(SIDE, decode_only=True), Work(SIDE, is_test=True)
RESIZE_SHARE = 0.13  # wanted: crop, then resize in uint8, of float-then-resize
TRAINING_SHARE = 0.9  # wanted: training from files, of training from memory

FULL = ReadingPlan(
    videos=4,
    num_frames=300,
    crop_size=SIDE,
    rounds=3,
    rows=(
        ReadingRow("8x8, decode", SHORT, FRAMES, 1, 8),
        ReadingRow(
            *("8x8, decode + transform", SHORT, VIEW, 1, 8),
            x_peer=3.0,
            prepared_x_peer=5.0,
            prepared_x_ours=1.8,
        ),
        ReadingRow("8x8, decode + transform", SHORT, VIEW, 2, 8),
        ReadingRow("32x2, decode", LONG, FRAMES, 1, 8),
        ReadingRow("32x2, decode + transform", LONG, VIEW, 1, 8, x_peer=3.3),
        ReadingRow("32x2, decode + transform", LONG, VIEW, 2, 8),
        ReadingRow("30 views of 8x8 of a video", SHORT, TEST, 1, 4, num_clips=10, x_peer=10.0),
    ),
    training={
        "i3d_tiny": Steps(8, SIDE, batch=4, steps=4, rounds=3),
        "i3d_nl5": Steps(8, SIDE, batch=1, steps=2, rounds=3),
    },
)
QUICK = FULL._replace(
    videos=2,
    rounds=3,
    rows=tuple(row._replace(samples=max(row.samples // 3, 1)) for row in FULL.rows[1::3]),
    training={"i3d_tiny": Steps(8, SIDE, batch=4, steps=4, rounds=1)},
)
