"""The sizes at which bench=ops measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

HEADS = (1, 4, 8)
LARGEST_NAIVE = 2**28  # pairs of positions: 1 GB for each affinity in float32


class Shape(NamedTuple):
    """A feature map of channels x frames x side x side of a ResNet-50.

    `pooled` says whether the keys are pooled by 2 x 2 over space.
    """

    stage: str
    channels: int
    frames: int
    side: int
    pooled: bool

    @property
    def queries(self) -> int:
        return self.frames * self.side**2

    @property
    def keys(self) -> int:
        return self.queries // 4 if self.pooled else self.queries

    @property
    def inner(self) -> int:
        """The channels of theta, phi and g."""
        return self.channels // 2

    @property
    def naive_fits(self) -> bool:
        """Whether the naive form, which keeps the N x M affinity, is measured too."""
        return self.queries * self.keys <= LARGEST_NAIVE

    def __str__(self) -> str:
        return f"{self.stage}, T = {self.frames}, N = {self.queries:,}, M = {self.keys:,}"


@dataclass(frozen=True)
class Plan:
    """What one run of bench=ops measures."""

    shapes: Sequence[Shape]  # times of functions and blocks
    growth: Sequence[Shape]  # times over the number of positions
    memory: Sequence[Shape]  # peak memory of a training step
    underflow: Sequence[Shape]  # times of the Gaussian with denormals and without them
    heads: Sequence[Shape]  # times of blocks with several heads
    repeats: int  # calls of a small shape; a large one gets a fifth of them


SHAPES = [
    Shape(stage, channels, frames, side, pooled)
    for stage, channels, side in (("res3", 512, 28), ("res4", 1024, 14))
    for frames in (4, 8, 16)
    for pooled in (True, False)
]
GROWTH = [Shape("res3", 512, frames, 28, pooled=True) for frames in (1, 2, 4, 8, 16, 32, 64)]

FULL = Plan(
    SHAPES,
    GROWTH,
    memory=[SHAPES[1], SHAPES[4], SHAPES[5], SHAPES[11], GROWTH[-1]],
    underflow=[SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[6], SHAPES[8], SHAPES[9], SHAPES[11]],
    heads=[SHAPES[0], SHAPES[2], SHAPES[3], SHAPES[6], SHAPES[8], SHAPES[9]],
    repeats=15,
)
QUICK = Plan(
    [shape for shape in SHAPES if shape.frames == 4],
    GROWTH[:3],
    memory=SHAPES[1:2],
    underflow=[SHAPES[0], SHAPES[6]],
    heads=[SHAPES[0], SHAPES[6]],
    repeats=5,
)
