"""The non-local block: z = x + W_z y, with y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j).

Shapes: maps (B, C, T, H, W), tokens (B, T, H, W, C), d = ratio C inner channels. The names of the
submodules are those of checkpoints: theta, phi, g, out, norm, mask, pairwise, gamma.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.checks import one_of
from nlnet.errors import UsageError
from nlnet.model.non_local.axes import AXES, Pass
from nlnet.model.non_local.pairwise import PAIRWISE, Maps
from nlnet.model.non_local.tokens import Pointwise, to_map, to_tokens
from nlnet.model.norm import NORMS, Norm


@dataclass(frozen=True)
class Logits:
    """What stands in front of a softmax."""

    scale: bool = True  # times d^-0.5
    temperature: float = 1.0  # divides the logits of the whitened pairwise term


@dataclass(frozen=True)
class Embedding:
    """The maps theta, phi and g."""

    ratio: float = 0.5  # d over C
    bias: bool = True
    shared: bool = False  # phi is theta
    init: str = "normal"  # a name in INITS


@dataclass(frozen=True)
class Subsample:
    """Max pooling of the keys and values."""

    where: str = "input"  # a name in SUBSAMPLES
    kernel: tuple[int, int, int] = (1, 2, 2)  # and stride, (t, h, w)


@dataclass(frozen=True)
class Output:
    """W_z and what follows it."""

    bias: bool = True
    norm: str = "batch"  # a name in NORMS, or none
    zero_init: bool = True  # the block starts as the identity
    gamma: bool = False  # a learnt scalar in front (SAGAN)


SUBSAMPLES: dict[str, str] = {
    "none": "all positions are keys",
    "input": "x is pooled, once, in front of phi and g",
    "embedded": "phi and g are pooled",
}
INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda weight: nn.init.normal_(weight, std=0.01),
    "kaiming": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu"),
}
OUTPUT_NORMS: dict[str, Norm] = NORMS | {"none": nn.Identity}


class NonLocalBlock(nn.Module):
    """z = x + norm(W_z y), any of the family: pairwise function, axes, pooling and output.

    (B, C, T, H, W) -> the same, and in the same memory format. `pairwise` is a name in PAIRWISE,
    `axes` in AXES; `group_frames` consecutive frames attend to each other, None is all of them,
    and along space alone it is one whatever is said. Keys are never pooled where positions attend
    through time only. In `criss_cross`, time then space, the second round's values are the first
    one's outputs, pooled. A kernel that is larger than the map is cut to it. Raises UsageError for
    unknown names and for a group that does not divide T. Source: Wang et al. 2018, section 3; the
    keywords are what published implementations differ in.
    """

    def __init__(
        self,
        channels: int,
        *,
        pairwise: str = "embedded_gaussian",
        axes: str = "spacetime",
        group_frames: int | None = None,
        logits: Logits = Logits(),
        embedding: Embedding = Embedding(),
        subsample: Subsample = Subsample(),
        output: Output = Output(),
    ) -> None:
        super().__init__()
        self.passes = one_of("model.non_local.axes", axes, AXES)
        self.group_frames = group_frames
        one_of("model.non_local.subsample", subsample.where, SUBSAMPLES)
        self.subsample = subsample
        inner = inner_channels(channels, embedding.ratio)
        make = one_of("model.non_local.pairwise", pairwise, PAIRWISE)
        self.pairwise = make(inner, scale=logits.scale, temperature=logits.temperature)
        self.theta: Pointwise | None = None
        self.phi: Pointwise | None = None  # theta too where they are shared
        if self.pairwise.embedded:
            self.theta = Pointwise(channels, inner, bias=embedding.bias)
        if self.pairwise.embedded and not embedding.shared:
            self.phi = Pointwise(channels, inner, bias=embedding.bias)
        self.g = Pointwise(channels, inner, bias=embedding.bias)
        self.mask = Pointwise(channels, 1) if self.pairwise.unary else None
        self.out = Pointwise(inner, channels, bias=output.bias)
        initialize(self, embedding.init)
        self.norm, self.gamma = output_layers(self.out, output)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(to_tokens(x))
        z = self.norm(to_map(self.out(y)))
        return x + z if self.gamma is None else x + self.gamma * z

    def attend(self, tokens: Tensor) -> Tensor:
        """y, (B, T, H, W, d): one round of attention for each pass of the axes."""
        theta = tokens
        if self.theta is not None:
            theta = embed(self.theta, tokens, behind=self.pairwise.behind_theta())
        first, *rest = self.passes
        y = self.round(first, theta, tokens)
        for axes in rest:
            y = self.round(axes, theta, tokens, values=y)
        return y

    def round(
        self, axes: Pass, theta: Tensor, tokens: Tensor, values: Tensor | None = None
    ) -> Tensor:
        """Attention along some axes over `values`, (B, T, H, W, d), or over g where None."""
        where = self.subsample.where if axes.subsamples else "none"
        before = self.pool if where == "input" else identity
        after = self.pool if where == "embedded" else identity
        keys = before(tokens)
        of_keys = self.theta if self.phi is None else self.phi
        phi = after(keys)
        if of_keys is not None:
            phi = embed(of_keys, keys, pool=after, behind=self.pairwise.behind_phi())
        g = after(before(values)) if values is not None else embed(self.g, keys, pool=after)
        mask = None if self.mask is None else embed(self.mask, keys, pool=after)

        groups = axes.groups(tokens.shape[1], self.group_frames)
        if phi.shape[1] % groups != 0:
            raise UsageError(
                f"model.non_local.subsample_kernel={list(self.subsample.kernel)} pools frames of "
                "different groups together; pool time by 1"
            )
        maps = Maps(
            axes.fold(theta, groups),
            axes.fold(phi, groups),
            axes.fold(g, groups),
            None if mask is None else axes.fold(mask, groups).squeeze(2),
        )
        return axes.unfold(self.pairwise(maps), tokens, groups)

    def pool(self, tokens: Tensor) -> Tensor:
        """Max pooling, (B, T, H, W, C) -> (B, T', H', W', C); a rest at the border is left out."""
        sizes = tokens.shape[1:4]
        kernel = [min(k, size) for k, size in zip(self.subsample.kernel, sizes, strict=True)]
        return to_tokens(F.max_pool3d(to_map(tokens), kernel))


def identity(tokens: Tensor) -> Tensor:
    return tokens


def embed(
    conv: Pointwise,
    tokens: Tensor,
    *,
    pool: Callable[[Tensor], Tensor] = identity,
    behind: Tensor | None = None,
) -> Tensor:
    """A 1x1x1 convolution, a pool, a linear map (d', d); one product where no pool is between."""
    if behind is None or pool is identity:
        return pool(conv(tokens, behind))
    return F.linear(pool(conv(tokens)), behind)


def inner_channels(channels: int, ratio: float) -> int:
    """d = ratio C, at least 1."""
    return max(1, int(channels * ratio))


def initialize(block: nn.Module, init: str) -> None:
    """Draw the weights of a block's convolutions; biases start at 0."""
    draw = one_of("model.non_local.init", init, INITS)
    for module in block.modules():
        if isinstance(module, nn.Conv3d):
            draw(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def output_layers(out: nn.Conv3d, output: Output) -> tuple[nn.Module, nn.Parameter | None]:
    """The norm and the scalar behind W_z.

    With `zero_init` exactly one thing in the chain starts at 0, so that it, and then the rest, can
    learn: the scalar, else the norm, else W_z.
    """
    norm = one_of("model.non_local.norm", output.norm, OUTPUT_NORMS)(out.out_channels)
    learns = any(parameter.requires_grad for parameter in norm.parameters())
    gamma = None
    if output.gamma:
        gamma = nn.Parameter(torch.tensor(0.0 if output.zero_init else 1.0))
    elif output.zero_init and learns:
        nn.init.zeros_(norm.get_parameter("weight"))
    elif output.zero_init:
        nn.init.zeros_(out.weight)
    return norm, gamma
