"""Arguments and layers that the blocks of the family share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlnet.errors import ArgumentError, choose
from nlnet.model.non_local.tokens import Pointwise, lift
from nlnet.model.non_local.whitening import Whitening
from nlnet.model.norm import NORMS, Norm, SyncBatchNorm3d


@dataclass(frozen=True)
class Logits:
    """What is done to theta, phi and their products, and the unary terms."""

    scale: bool | float = True  # multiply the logits of a softmax by d^-0.5, or by a number
    temperature: float = 1.0  # divides the logits of the whitened pairwise term
    whiten: tuple[Whitening, ...] = ()  # of theta and phi, before any pairwise function
    unary: tuple[
        str, ...
    ] = ()  # names in UNARIES of terms.py: terms besides the pairwise function's


@dataclass(frozen=True)
class Embedding:
    """The maps theta, phi and g."""

    ratio: float = 0.5  # d divided by C
    bias: bool = True
    shared: bool = False  # use theta as phi
    init: str = "normal"  # a name in INITS
    inner: int | None = None  # d itself, in place of a ratio
    value_bias: bool | None = None  # of g, if it differs from `bias`
    norm: str = "none"  # a name in EMBEDDING_NORMS, of theta and phi after their whitening
    prelu: bool = False  # a PReLU with one slope follows each map
    weight_norm: bool = False  # theta and phi have normalized weights with learned lengths


@dataclass(frozen=True)
class Subsample:
    """Max pooling of the keys and values."""

    where: str = "input"  # a name in SUBSAMPLES
    # Kernel and stride: (t, h, w), (h, w) or (l,). None pools height and width, or l, by 2.
    kernel: tuple[int, ...] | None = None

    def lifted(self, dims: int) -> tuple[int, int, int]:
        """The kernel of tokens, (t, h, w); raises ArgumentError if it has not `dims` numbers."""
        match self.kernel or {1: (2,), 2: (2, 2), 3: (1, 2, 2)}[dims]:
            case (l,) if dims == 1:
                return l, 1, 1
            case (h, w) if dims == 2:
                return 1, h, w
            case (t, h, w) if dims == 3:
                return t, h, w
        raise ArgumentError(f"subsample_kernel={list(self.kernel or ())} must be {dims} numbers")


@dataclass(frozen=True)
class Output:
    """W_z and the layers after it."""

    bias: bool = True
    norm: str = "batch"  # a name in OUTPUT_NORMS
    zero_init: bool = True  # initialize the block as the identity
    gamma: bool = False  # multiply by a learned scalar (SAGAN)
    terms: str = "joint"  # a name in TERMS of terms.py
    project: bool = True  # W_z exists; otherwise g has the channels of x
    residual: bool = True  # add x


SUBSAMPLES: dict[str, str] = {
    "none": "all positions are keys",
    "input": "x is pooled once, before phi and g",
    "embedded": "phi and g are pooled",
}
EMBEDDING_NORMS: dict[str, Callable[[int], nn.Module] | None] = {
    "none": None,
    "batch": nn.BatchNorm1d,
    "batch_fixed": lambda inner: nn.BatchNorm1d(inner, affine=False),
}
INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda weight: nn.init.normal_(weight, std=0.01),
    "kaiming": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu"),
}
OUTPUT_NORMS: dict[str, Norm] = NORMS | {"none": nn.Identity}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class _SyncBatchNorm(SyncBatchNorm3d):
    """SyncBatchNorm3d of maps of 1 or 2 dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(lift(x)).view_as(x)


# In place of an entry of OUTPUT_NORMS that is for 3 dimensions alone.
LOWER_NORMS: dict[int, dict[str, Norm]] = {
    1: {"batch": nn.BatchNorm1d, "sync": _SyncBatchNorm},
    2: {"batch": nn.BatchNorm2d, "sync": _SyncBatchNorm},
    3: {},
}


def inner_channels(channels: int, ratio: float, inner: int | None = None) -> int:
    """d = ratio C, at least 1; `inner` is d itself."""
    return max(1, int(channels * ratio)) if inner is None else inner


def check_heads(heads: int, *channels: int) -> None:
    """Raise ArgumentError if the heads do not divide the channels of theta, phi or g."""
    for number in channels:
        if heads < 1 or number % heads != 0:
            raise ArgumentError(f"heads={heads} does not divide the {number} inner channels")


def embedding_norms(name: str, inner: int) -> tuple[nn.Module | None, nn.Module | None]:
    """The norms of theta and phi, (B, d, N) -> the same."""
    make = choose("embedding_norm", name, EMBEDDING_NORMS)
    return (None, None) if make is None else (make(inner), make(inner))


def initialize(block: nn.Module, init: str) -> None:
    """Draw the weights of a block's convolutions by a rule of INITS; biases start at 0."""
    draw = choose("init", init, INITS)
    for module in block.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def output_layers(
    out: Pointwise, output: Output, dims: int
) -> tuple[nn.Module, nn.Parameter | None]:
    """The norm and the scalar after W_z; W_z is `out`, or g if there is no W_z.

    With `zero_init` exactly one of them starts at 0: the scalar if there is one, else the norm's
    weight if it learns, else W_z. Two zeros in a row would have no gradient.
    """
    norm = choose("norm", output.norm, OUTPUT_NORMS | LOWER_NORMS[dims])(out.out_channels)
    learns = any(parameter.requires_grad for parameter in norm.parameters())
    gamma = None
    if output.gamma:
        gamma = nn.Parameter(torch.tensor(0.0 if output.zero_init else 1.0))
    elif output.zero_init and learns:
        nn.init.zeros_(norm.get_parameter("weight"))
    elif output.zero_init:
        nn.init.zeros_(out.weight)
    return norm, gamma
