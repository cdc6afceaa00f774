"""A whole run, and the variants of it that some tools read."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from nlnet.config.data import DataConfig
from nlnet.config.debug import DebugConfig
from nlnet.config.model import ModelConfig
from nlnet.config.optim import OptimConfig, ScheduleConfig
from nlnet.config.trainer import TrainerConfig


@dataclass
class DistConfig:
    """The ranks of a run."""

    num_procs: int = 1  # processes on this machine
    device: str = "auto"  # auto, cpu or cuda
    # Starts of all processes from the last checkpoint after one was killed or has crashed, with
    # num_procs above 1. torchrun has its own --max-restarts.
    max_restarts: int = 0
    # Seconds that a process waits for another one: at the start, in the first step and in an
    # evaluation; and in every other step. Then it ends with the name of the missing one.
    first_timeout: float = 1800.0
    timeout: float = 600.0
    # ddp: every rank has the whole network. fsdp: every rank has a part of each parameter, of its
    # gradient and of the optimizer, for networks that are too wide for one GPU.
    strategy: str = "ddp"
    # How gradients are sent: none (as they are), bf16 or fp16 (rounded, half the bytes).
    gradient_compression: str = "none"
    # DDP expects the same graph in every step, and looks for parameters without a gradient once.
    static_graph: bool = False


@dataclass
class RunConfig:
    """One run."""

    name: str = MISSING  # names the output folder, outputs/<name>
    seed: int = 0  # of all random numbers of the run
    # A file of nlnet or of a code base that tools/convert.py knows, a URL or a public name, such
    # as caffe2/i3d_nl5_8x8 (all names: nlnet/weights/sources/). FILE#WORD takes the tensors that a
    # file holds under WORD, such as best.pt#model.
    weights: str | None = None
    inflation: str = "mean"  # 2-D kernels to 3-D: mean (copies divided by T) or center (one copy)
    model: ModelConfig = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = MISSING
    schedule: ScheduleConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    dist: DistConfig = field(default_factory=DistConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)


@dataclass
class DescribeConfig(RunConfig):
    """A run, and where tools/describe.py writes its table."""

    json: str | None = None  # also write the table to this file


@dataclass
class InspectConfig(RunConfig):
    """A run, and what tools/inspect_data.py draws."""

    split: str = "train"  # train, val or test
    clips: int = 8  # how many
    out: str | None = None  # the PNG; null: clips.png in the output folder


@dataclass
class BenchmarkConfig(RunConfig):
    """A run, and what tools/benchmark.py measures."""

    bench: str = "ops"  # ops, step, data, forms or gpu
    # Clips of bench=step, null: 2 on a CPU and 32 on a GPU; and of bench=gpu, null: as it chooses.
    batch: int | None = None
    only: list[str] = field(default_factory=list)  # what bench=gpu measures; []: everything
    quick: bool = False  # take a minute: fewer shapes, fewer repetitions
    json: str | None = None  # also write every number to this file
    out: str = "benchmarks"  # folder of tables and pictures
