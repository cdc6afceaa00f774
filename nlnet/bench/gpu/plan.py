"""The networks, the blocks and the sizes that bench=gpu measures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nlnet.bench.operations.shapes import SHAPES, Shape

LONG = ("stem=paper", "clip=128x1")  # 128 consecutive frames
TINY_CLIP = ("data.clip.num_frames=4", "data.clip.crop_size=32")


@dataclass(frozen=True)
class Network:
    """One network of the benchmark: an experiment, changed by words of the command line."""

    name: str
    experiment: str
    words: tuple[str, ...] = ()
    batch: int = 32  # clips


@dataclass(frozen=True)
class GpuPlan:
    """What one run of bench=gpu measures."""

    networks: Sequence[Network]
    shapes: Sequence[Shape]  # of the maps that blocks get
    batch: int  # clips of a block
    precision: str  # bf16, or fp32
    compiles: bool  # False: torch.compile leaves the networks as they are
    warmup: int  # steps before the first timed one
    windows: int  # times that are measured; the median counts
    steps: int  # in a window


C2D, I3D, NL5, NL10, LONG_NL10 = "c2d", "i3d", "i3d_nl5", "i3d_nl10", "i3d_nl10_128x1"
NETWORKS = (
    Network(C2D, C2D),
    Network(I3D, I3D),
    Network(NL5, NL5),
    Network(NL10, NL10),
    Network(LONG_NL10, NL10, LONG, batch=8),
)
BLOCKS = "blocks"  # the name of all blocks, beside those of the networks

FULL_PLAN = GpuPlan(
    NETWORKS,
    [shape for shape in SHAPES if shape.frames in (4, 16) and shape.pooled],
    batch=8,
    precision="bf16",
    compiles=True,
    warmup=5,
    windows=5,
    steps=10,
)
QUICK_PLAN = replace(
    FULL_PLAN,
    networks=NETWORKS[1:3],
    shapes=[shape for shape in FULL_PLAN.shapes if shape.frames == 4],
    windows=3,
    steps=5,
)
# To see on a CPU that the code works: the figures mean nothing. In float32, because the kernels of
# some processors are wrong in bfloat16, and a contender that is wrong is refused.
TINY_PLAN = GpuPlan(
    [replace(network, words=TINY_CLIP, batch=2) for network in NETWORKS[1:3]],
    [Shape("res3", channels=16, frames=2, side=4, pooled=True)],
    batch=2,
    precision="fp32",
    compiles=False,
    warmup=0,
    windows=1,
    steps=1,
)
