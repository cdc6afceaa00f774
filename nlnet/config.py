"""Every knob of a run: its name, type, default and meaning, on one page.

Only the `build.py` files and `tools/` read these classes; everything below them takes plain
keywords. Hydra merges the YAML of `configs/` over them, so a misspelt key or a word where a
number belongs dies when the command is read, not in the third hour.
"""

from dataclasses import dataclass, field, fields

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nlnet.errors import UserError


@dataclass
class StageKernels:
    """Temporal kernel size of each residual block of a stage; a pattern repeats over its blocks."""

    res2: list[int] = field(default_factory=lambda: [1])
    res3: list[int] = field(default_factory=lambda: [1])
    res4: list[int] = field(default_factory=lambda: [1])
    res5: list[int] = field(default_factory=lambda: [1])


@dataclass
class StageFrames:
    """How many consecutive frames attend to each other in a stage; null is the whole clip."""

    res2: int | None = None
    res3: int | None = None
    res4: int | None = None
    res5: int | None = None


@dataclass
class StageSizes:
    """A size (t, h, w) for one stage alone; null is what holds for all of them."""

    res2: list[int] | None = None
    res3: list[int] | None = None
    res4: list[int] | None = None
    res5: list[int] | None = None


@dataclass
class NonLocalConfig:
    """Where non-local blocks stand and what they compute."""

    # Indices (from 0) of the residual blocks that are followed by a non-local block.
    res2: list[int] = field(default_factory=list)
    res3: list[int] = field(default_factory=list)
    res4: list[int] = field(default_factory=list)
    res5: list[int] = field(default_factory=list)
    block: str = "non_local"  # the family member: a name in nlnet.model.non_local.build.BLOCKS
    pairwise: str = "embedded_gaussian"  # f(x_i, x_j) of a non_local block: a name in PAIRWISE
    axes: str = "spacetime"  # spacetime, space, time, criss_cross
    group_frames: StageFrames = field(default_factory=StageFrames)
    subsample: str = "input"  # max-pool of the keys: none, input (before phi, g), embedded (after)
    subsample_kernel: list[int] = field(default_factory=lambda: [1, 2, 2])  # and stride, (t, h, w)
    stage_subsample_kernel: StageSizes = field(default_factory=StageSizes)
    scale: bool = True  # multiply softmax logits by d^-0.5
    temperature: float = 1.0  # divides the logits of the disentangled pairwise term
    ratio: float = 0.5  # inner channels d over block channels C
    embedding_bias: bool = True  # of theta, phi and g
    out_bias: bool = True  # of W_z
    shared_embedding: bool = False  # phi is theta
    gamma: bool = False  # a learnt scalar, 0 at first, on the block's output (SAGAN)
    norm: str = "batch"  # behind W_z: batch, sync, frozen, none
    zero_init: bool = True  # the block starts as the identity
    init: str = "normal"  # of the embeddings: normal (std 0.01) or kaiming


@dataclass
class ModelConfig:
    """A C2D or I3D ResNet: C2D and I3D are tables of temporal kernels.

    Or, by its name, a network of pytorchvideo: its sizes are its own, and of the keys here it reads
    dropout, the head's, activation, normalization and non_local.
    """

    network: str = "resnet"  # or slow_r50, r2plus1d_r50, csn_r101, x3d_m: of pytorchvideo
    depth: int = 50  # 14, 26, 50, 101 or 152: a name in nlnet.model.resnet3d.DEPTHS
    width: int = 64  # channels of conv1; res2 to res5 have 4, 8, 16 and 32 times as many
    conv1_kernel: list[int] = field(default_factory=lambda: [1, 7, 7])
    conv1_stride: list[int] = field(default_factory=lambda: [1, 2, 2])
    pool1_kernel: list[int] = field(default_factory=lambda: [1, 3, 3])
    pool1_stride: list[int] = field(default_factory=lambda: [1, 2, 2])
    pool1_padding: list[int] = field(default_factory=lambda: [0, 1, 1])
    # Max pooling behind res2; null leaves time alone.
    pool2_kernel: list[int] | None = field(default_factory=lambda: [2, 1, 1])
    pool2_stride: list[int] = field(default_factory=lambda: [2, 1, 1])
    pool2_padding: list[int] = field(default_factory=lambda: [0, 0, 0])
    temporal_kernels: StageKernels = field(default_factory=StageKernels)
    inflate_conv: str = "a"  # which convolution bears them: a (3x1x1) or b (3x3x3)
    stride_conv: str = "b"  # which convolution bears the spatial stride of res3 to res5: a or b
    norm: str = "batch"  # batch, sync (statistics over all ranks), frozen (a fixed affine map)
    zero_init_residual: bool = True  # the last norm of each residual block starts at 0
    dropout: float = 0.5  # in front of the classifier
    # Spatial window (h, w) of the average pool at the end; null is all positions. A larger crop
    # then has several windows: the fully convolutional test of the paper.
    head_window: list[int] | None = None
    head_average: str = "probabilities"  # what is averaged over windows: probabilities or logits
    activation: str = "softmax"  # of the scores: softmax, or sigmoid for several labels a video
    normalization: str = "imagenet"  # of the input: a name in nlnet.model.classifier.NORMALIZATIONS
    non_local: NonLocalConfig = field(default_factory=NonLocalConfig)


@dataclass
class ClipConfig:
    """T frames, tau apart, cropped to a square."""

    num_frames: int = 8
    frame_stride: int = 8  # tau, in frames of the file
    sampler: str = "dense"  # a name in nlnet.data.clip_sampling.SAMPLERS
    short: str = "loop"  # a video with too few frames: loop (from its start) or hold (its end)
    crop_size: int = 224  # side of the square view, in pixels


@dataclass
class AugmentConfig:
    """What training does to the picture."""

    crop: str = "jitter"  # jitter (short side, then a random square) or resized (area and aspect)
    short_side: list[int] = field(default_factory=lambda: [256, 320])  # jitter: uniform, in pixels
    area: list[float] = field(default_factory=lambda: [0.35, 1.0])  # resized: share of the frame
    flip: bool = True  # left-right; wrong where labels have a direction
    color_jitter: float = 0.0  # strength of brightness, contrast and saturation changes


@dataclass
class ViewsConfig:
    """The views of a held-out video, and what makes its score of theirs."""

    num_clips: int = 10  # in time
    num_crops: int = 3  # in space, along the longer side: 1 or 3
    crop_size: int = 256
    short_side: int = 256
    batch_size: int = 8  # views in one forward pass of one rank
    crops: str = "spread"  # where the crops stand: a name in nlnet.data.transforms.CROPS
    ensemble: str = "mean"  # the video's score over its views, class by class: mean or max


@dataclass
class DataConfig:
    """Where the videos are and how clips are taken from them."""

    root: str = MISSING  # folder that holds the splits
    # A split is a folder of class folders, a CSV of Kinetics or Charades, or a `path label` list
    # (`path label,label` for several labels a video), below root.
    # `file.csv#val` takes the rows whose split column says val.
    train: str = "train"
    val: str = "val"  # scored after each epoch
    test: str = "val"  # scored by tools/eval.py
    videos: str = "."  # folder that CSV and list entries refer to, below root
    classes: str | None = None  # file with one class name a line, below root; else from the split
    allow_missing: bool = False  # leave out listed videos that have no file, and count them
    max_bad_share: float = (
        0.01  # unreadable videos in training, of those asked for, before it stops
    )
    allow_bad: bool = False  # evaluation: an unreadable video counts as wrong instead of stopping
    batch_size: int = 64  # clips per optimiser step, over all ranks and accumulation steps
    num_workers: int | None = None  # decoding processes per rank; null is chosen from the machine
    clip: ClipConfig = field(default_factory=ClipConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    val_views: ViewsConfig = field(
        default_factory=lambda: ViewsConfig(num_clips=1, num_crops=1, crop_size=224, batch_size=16)
    )
    test_views: ViewsConfig = field(default_factory=ViewsConfig)


@dataclass
class OptimConfig:
    """What every optimiser has."""

    lr: float = 0.01  # at the reference batch of the recipe; never scaled automatically
    weight_decay: float = 1e-4
    decay_norm: bool = False  # weight decay on norm parameters
    decay_bias: bool = True  # weight decay on the biases of convolutions and the classifier


@dataclass
class SGDConfig(OptimConfig):
    """Stochastic gradient descent."""

    momentum: float = 0.9
    nesterov: bool = True


@dataclass
class AdamWConfig(OptimConfig):
    """Adam with decoupled weight decay."""

    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_bias: bool = False
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])


@dataclass
class ScheduleConfig:
    """How the learning rate follows the run; evaluated at every step."""

    warmup: float = 0.0  # length of the linear rise, in epochs
    warmup_start: float = 0.1  # share of the learning rate at its beginning


@dataclass
class StepConfig(ScheduleConfig):
    """Multiply by gamma at each milestone."""

    milestones: list[float] = field(default_factory=lambda: [0.375, 0.75])  # shares of the run
    gamma: float = 0.1


@dataclass
class CosineConfig(ScheduleConfig):
    """Half a cosine from 1 down to a floor."""

    floor: float = 0.0


@dataclass
class TrainerConfig:
    """The loop."""

    # The length of the run: one of the two is set, the other is null.
    epochs: int | None = None
    max_steps: int | None = None  # optimiser steps
    accumulate: int = 1  # forward passes per optimiser step
    clip_grad_norm: float | None = None
    label_smoothing: float = 0.0
    # fp32; bf16 or fp16 (autocast, fp16 with a loss scaler); auto: bf16 on a GPU, fp32 on a CPU
    precision: str = "fp32"
    freeze: list[str] = field(default_factory=list)  # parts that do not learn: conv1, res2, ...
    precise_bn: int = 0  # training batches that re-estimate BN statistics before each evaluation
    eval_every: int = 1  # epochs
    save_every_steps: int | None = None  # write last.pt also between epochs
    channels_last: bool = True  # memory format of convolutions
    compile: bool = False  # torch.compile
    lean: bool = True  # CPU, float32: residual blocks keep one map per convolution
    checkpoint_stages: list[str] = field(default_factory=list)  # keep block inputs only: res2, ...
    fold_norms: bool = True  # tools/eval.py: norms are folded into convolutions
    allocator: str = "reuse"  # of freed CPU memory: reuse, keep (fast), return (small), system


@dataclass
class DistConfig:
    """The ranks of one run."""

    num_procs: int = 1  # processes on this machine
    device: str = "auto"  # auto, cpu or cuda


@dataclass
class RunConfig:
    """One run, whole."""

    name: str = MISSING  # names the output folder, outputs/<name>
    seed: int = 0
    # A file of nlnet or of a code base that tools/convert.py knows, a URL or a public name, such
    # as caffe2/i3d_nonlocal_8x8 (all of them: nlnet/weights/public.py).
    weights: str | None = None
    inflation: str = "mean"  # 2-D kernels to 3-D: mean (copies divided by T) or centre
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = MISSING
    schedule: ScheduleConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    dist: DistConfig = field(default_factory=DistConfig)


@dataclass
class DescribeConfig(RunConfig):
    """tools/describe.py: a run, and where to write what is said of it."""

    json: str | None = None  # a file for the table, beside the screen


@dataclass
class BenchmarkConfig(RunConfig):
    """tools/benchmark.py: what to measure, and where to write it."""

    bench: str = "ops"  # ops or step: a name in tools/benchmark.py's BENCHES
    batch: int | None = None  # clips of bench=step; null is 2 on a CPU and 32 on a GPU
    quick: bool = False  # a minute's version: fewer shapes, fewer repetitions
    json: str | None = None  # a file for every number, beside the tables
    out: str = "benchmarks"  # folder of tables and pictures


def register_schemas() -> None:
    """Tell Hydra the types above; called by the tools, never by an import."""
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    store.store(name="describe_schema", node=DescribeConfig)
    store.store(name="benchmark_schema", node=BenchmarkConfig)
    store.store(group="optim", name="sgd_schema", node=SGDConfig)
    store.store(group="optim", name="adamw_schema", node=AdamWConfig)
    store.store(group="schedule", name="step_schema", node=StepConfig)
    store.store(group="schedule", name="cosine_schema", node=CosineConfig)


def run_text(run: RunConfig) -> str:
    """The resolved configuration as YAML text: what run folders and checkpoints hold."""
    return OmegaConf.to_yaml(OmegaConf.structured(run))


def parse_run(text: str, source: str) -> RunConfig:
    """Read what `run_text` wrote; raises UserError, naming `source`, if it is no such text."""
    tree = OmegaConf.create(text)
    base = OmegaConf.structured(RunConfig)
    try:
        base.optim = of_kind((SGDConfig, AdamWConfig), tree.optim)
        base.schedule = of_kind((StepConfig, CosineConfig), tree.schedule)
        run = OmegaConf.to_object(OmegaConf.merge(base, tree))
    except OmegaConfBaseException as error:
        cause = str(error).splitlines()[0]
        raise UserError(f"{source}: not a configuration of this version ({cause})") from error
    assert isinstance(run, RunConfig)
    return run


def of_kind(kinds: tuple[type, ...], tree: DictConfig) -> DictConfig:
    """The schema whose fields the tree has; the first where none fits, for its error to name."""
    names = set(tree)
    fitting = [kind for kind in kinds if names == {field.name for field in fields(kind)}]
    return OmegaConf.structured((fitting or list(kinds))[0])
