"""Keys of `model`: the network and its non-local blocks."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class StageKernels:
    """Temporal kernel sizes of the residual blocks of each stage.

    A pattern repeats over the blocks of its stage: [3, 1] inflates every other block.
    """

    # Sizes of the temporal kernels of the stage.
    res2: list[int] = field(default_factory=lambda: [1])
    res3: list[int] = field(default_factory=lambda: [1])
    res4: list[int] = field(default_factory=lambda: [1])
    res5: list[int] = field(default_factory=lambda: [1])


@dataclass
class StageFrames:
    """How many consecutive frames attend to each other in a stage; null: all frames."""

    # Frames of a group of the stage.
    res2: int | None = None
    res3: int | None = None
    res4: int | None = None
    res5: int | None = None


@dataclass
class StageSizes:
    """A size (t, h, w) for one stage; null: the size that is set for all stages."""

    # The size for the stage, (t, h, w).
    res2: list[int] | None = None
    res3: list[int] | None = None
    res4: list[int] | None = None
    res5: list[int] | None = None


@dataclass
class NonLocalConfig:
    """The positions of the non-local blocks, and what they compute."""

    # Indices (from 0) of the residual blocks that are followed by a non-local block.
    res2: list[int] = field(default_factory=list)
    res3: list[int] = field(default_factory=list)
    res4: list[int] = field(default_factory=list)
    res5: list[int] = field(default_factory=list)
    block: str = "non_local"  # a name in BLOCKS of nlnet/model/non_local/build.py
    # f(x_i, x_j) of block=non_local: a name in PAIRWISE of nlnet/model/non_local/pairwise.py
    pairwise: str = "embedded_gaussian"
    axes: str = "spacetime"  # spacetime, space, time, criss_cross, row_column
    group_frames: StageFrames = field(default_factory=StageFrames)
    # Max pooling of the keys and values: none, input (before phi and g), embedded (after them).
    subsample: str = "input"
    subsample_kernel: list[int] = field(default_factory=lambda: [1, 2, 2])  # and stride, (t, h, w)
    stage_subsample_kernel: StageSizes = field(default_factory=StageSizes)
    scale: bool = True  # multiply the logits of a softmax by d^-0.5
    temperature: float = 1.0  # divides the logits of the whitened pairwise term
    ratio: float = 0.5  # inner channels d divided by the block's channels C
    heads: int = 1  # number of heads that d is divided over; only for block=non_local
    embedding_bias: bool = True  # biases of theta, phi and g
    out_bias: bool = True  # bias of W_z
    shared_embedding: bool = False  # use theta as phi
    gamma: bool = False  # multiply the block's output by a learned scalar (SAGAN)
    norm: str = "batch"  # norm after W_z: batch, sync, frozen, affine, none
    zero_init: bool = True  # initialize the block as the identity
    init: str = "normal"  # initialization of the embeddings: normal (std 0.01) or kaiming


@dataclass
class ModelConfig:
    """The keys that all networks have; ResNetConfig and PytorchvideoConfig are the networks."""

    dropout: float = 0.5  # probability, before the classifier
    # Window (h, w) of the average pool before the classifier; null: all positions. If the feature
    # map is larger than the window, the classifier is applied at each place of the window: the
    # fully convolutional test of Wang et al. 2018.
    head_window: list[int] | None = None
    head_average: str = "probabilities"  # averaged over the windows: probabilities or logits
    activation: str = "softmax"  # logits to scores: softmax, or sigmoid for several labels a video
    normalization: str = "imagenet"  # of the pixels: imagenet or kinetics (mean 0.45, std 0.225)
    non_local: NonLocalConfig = field(default_factory=NonLocalConfig)


@dataclass
class ResNetConfig(ModelConfig):
    """A ResNet over clips. C2D, I3D and Slow differ in their temporal kernels alone."""

    depth: int = 50  # number of layers: 14, 26, 50, 101 or 152
    width: int = 64  # channels of conv1; res2 to res5 have 4, 8, 16 and 32 times as many
    # Kernels, strides and paddings are (t, h, w).
    conv1_kernel: list[int] = field(default_factory=lambda: [1, 7, 7])
    conv1_stride: list[int] = field(default_factory=lambda: [1, 2, 2])
    pool1_kernel: list[int] = field(default_factory=lambda: [1, 3, 3])
    pool1_stride: list[int] = field(default_factory=lambda: [1, 2, 2])
    pool1_padding: list[int] = field(default_factory=lambda: [0, 1, 1])
    # Max pooling after res2, which halves the number of frames; null: no pooling.
    pool2_kernel: list[int] | None = field(default_factory=lambda: [2, 1, 1])
    pool2_stride: list[int] = field(default_factory=lambda: [2, 1, 1])
    pool2_padding: list[int] = field(default_factory=lambda: [0, 0, 0])
    temporal_kernels: StageKernels = field(default_factory=StageKernels)
    inflate_conv: str = "a"  # the inflated convolution of a block: a (3x1x1) or b (3x3x3)
    stride_conv: str = "b"  # the convolution that has the spatial stride of res3 to res5: a or b
    # batch; sync (statistics over all ranks); frozen (statistics and weights fixed); affine (fixed
    # scale and shift, no statistics)
    norm: str = "batch"
    zero_init_residual: bool = True  # initialize the last norm of each residual block to 0


@dataclass
class PytorchvideoConfig(ModelConfig):
    """A network of pytorchvideo's hub, which sets its own sizes."""

    network: str = MISSING  # slow_r50, r2plus1d_r50, csn_r101 or x3d_m
