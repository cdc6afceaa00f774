"""NonLocalConfig -> a block, and the dict of the blocks of the family."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch import nn

from nlnet.checks import one_of, positive, section, triple
from nlnet.config import NonLocalConfig
from nlnet.errors import ArgumentError, UsageError
from nlnet.model.non_local.axes import AXES
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.compact_generalized import CompactGeneralizedBlock
from nlnet.model.non_local.double_attention import DoubleAttentionBlock
from nlnet.model.non_local.global_context import GlobalContextBlock, SimplifiedNonLocalBlock
from nlnet.model.non_local.layers import (
    INITS,
    OUTPUT_NORMS,
    SUBSAMPLES,
    Embedding,
    Logits,
    Output,
    Subsample,
)
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.model.non_local.stages import Place, insert_modules


def check_blocks(cfg: NonLocalConfig) -> None:
    """Raise UsageError that names the key of a value that is wrong for every block."""
    one_of("model.non_local.block", cfg.block, BLOCKS)
    one_of("model.non_local.pairwise", cfg.pairwise, PAIRWISE)
    one_of("model.non_local.axes", cfg.axes, AXES)
    one_of("model.non_local.subsample", cfg.subsample, SUBSAMPLES)
    one_of("model.non_local.norm", cfg.norm, OUTPUT_NORMS)
    one_of("model.non_local.init", cfg.init, INITS)
    positive("model.non_local.temperature", cfg.temperature)
    positive("model.non_local.ratio", cfg.ratio)
    positive("model.non_local.heads", cfg.heads)
    triple("model.non_local.subsample_kernel", cfg.subsample_kernel)
    for stage, kernel in asdict(cfg.stage_subsample_kernel).items():
        if kernel is not None:
            triple(f"model.non_local.stage_subsample_kernel.{stage}", kernel)
    for stage, frames in asdict(cfg.group_frames).items():
        if frames is not None:
            positive(f"model.non_local.group_frames.{stage}", frames)


def insert_blocks(backbone: nn.Module, channels: Mapping[str, int], cfg: NonLocalConfig) -> None:
    """Insert the blocks of a config into a backbone whose stages have these channels.

    Raises UsageError for unknown positions.
    """
    group_frames: dict[str, int | None] = asdict(cfg.group_frames)
    kernels: dict[str, list[int] | None] = asdict(cfg.stage_subsample_kernel)

    def make(place: Place) -> nn.Module:
        kernel = kernels[place.stage] or cfg.subsample_kernel
        block = replace(cfg, subsample_kernel=kernel)
        return build_block(block, channels[place.stage], group_frames[place.stage])

    with section("model.non_local"):
        insert_modules(backbone, placement(cfg), make)


def build_from_options(
    name: str, options: Mapping[str, Any], *, channels: int, dims: int
) -> nn.Module:
    """A block by its name in BLOCKS, with plain options: keys of NonLocalConfig for one stage.

    Raises ArgumentError for an unknown option or a wrong value; it begins with the option's name.
    """
    places = {"block", "stage_subsample_kernel", *placement(NonLocalConfig())}
    known = [field.name for field in fields(NonLocalConfig) if field.name not in places]
    for option, value in options.items():
        if option not in known:
            raise ArgumentError(f"{option}={value!r} is no option; choose from {', '.join(known)}")
    chosen = {option: value for option, value in options.items() if option != "group_frames"}
    if "subsample_kernel" in chosen:
        kernel = list(chosen["subsample_kernel"])
        if len(kernel) != dims:
            raise ArgumentError(f"subsample_kernel={kernel} must be {dims} numbers")
        chosen["subsample_kernel"] = [1] * (3 - dims) + kernel
    cfg = NonLocalConfig(block=name, **chosen)
    try:
        check_blocks(replace(cfg, axes="spacetime"))  # the names of axes depend on `dims`
        return build_block(cfg, channels, options.get("group_frames"), dims)
    except UsageError as error:
        raise ArgumentError(str(error).removeprefix("model.non_local.")) from error


def placement(cfg: NonLocalConfig) -> dict[str, list[int]]:
    """Stage -> indices of the residual blocks that a non-local block follows."""
    return {"res2": cfg.res2, "res3": cfg.res3, "res4": cfg.res4, "res5": cfg.res5}


@dataclass(frozen=True)
class _Extent:
    """The positions that attend to each other."""

    dims: int
    axes: str | None  # None: all positions
    group_frames: int | None


def build_block(
    cfg: NonLocalConfig, channels: int, group_frames: int | None, dims: int = 3
) -> nn.Module:
    """The block of a config, for maps of `channels` channels and `dims` dimensions.

    `group_frames` is the stage's value in cfg.group_frames. Each block reads the keys that its
    definition has. For fewer than 3 dimensions, axes=spacetime is all positions, and the last
    numbers of `subsample_kernel` count. Raises UsageError for unknown names.
    """
    build = one_of("model.non_local.block", cfg.block, BLOCKS)
    if cfg.heads != 1 and build is not _build_non_local:
        raise UsageError(f"model.non_local.heads={cfg.heads} is only for block=non_local")
    axes = None if cfg.axes == "spacetime" else cfg.axes
    with section("model.non_local"):
        return build(cfg, channels, _Extent(dims, axes, group_frames))


def _build_non_local(cfg: NonLocalConfig, channels: int, extent: _Extent) -> nn.Module:
    kernel = triple("model.non_local.subsample_kernel", cfg.subsample_kernel)
    return NonLocalBlock(
        channels,
        **asdict(extent),
        pairwise=cfg.pairwise,
        heads=cfg.heads,
        logits=Logits(cfg.scale, cfg.temperature),
        embedding=_embedding(cfg),
        subsample=Subsample(cfg.subsample, kernel[-extent.dims :]),
        output=_output(cfg),
    )


def _build_simplified(cfg: NonLocalConfig, channels: int, extent: _Extent) -> nn.Module:
    return SimplifiedNonLocalBlock(
        channels,
        **asdict(extent),
        init=cfg.init,
        zero_init=cfg.zero_init,
    )


def _build_global_context(cfg: NonLocalConfig, channels: int, extent: _Extent) -> nn.Module:
    return _global_context_block(cfg, channels, extent, fusion="add")


def _build_global_context_mul(cfg: NonLocalConfig, channels: int, extent: _Extent) -> nn.Module:
    return _global_context_block(cfg, channels, extent, fusion="mul")


def _global_context_block(
    cfg: NonLocalConfig, channels: int, extent: _Extent, *, fusion: str
) -> nn.Module:
    return GlobalContextBlock(
        channels,
        fusion=fusion,
        **asdict(extent),
        ratio=cfg.ratio,
        init=cfg.init,
        zero_init=cfg.zero_init,
    )


def _build_double_attention(cfg: NonLocalConfig, channels: int, extent: _Extent) -> nn.Module:
    return DoubleAttentionBlock(
        channels,
        **asdict(extent),
        embedding=_embedding(cfg),
        output=_output(cfg),
    )


def _build_compact_generalized(cfg: NonLocalConfig, channels: int, extent: _Extent) -> nn.Module:
    return CompactGeneralizedBlock(
        channels,
        **asdict(extent),
        ratio=cfg.ratio,
        init=cfg.init,
        zero_init=cfg.zero_init,
    )


def _embedding(cfg: NonLocalConfig) -> Embedding:
    return Embedding(cfg.ratio, cfg.embedding_bias, cfg.shared_embedding, cfg.init)


def _output(cfg: NonLocalConfig) -> Output:
    return Output(cfg.out_bias, cfg.norm, cfg.zero_init, cfg.gamma)


BLOCKS: dict[str, Callable[[NonLocalConfig, int, _Extent], nn.Module]] = {
    "non_local": _build_non_local,
    "simplified": _build_simplified,
    "global_context": _build_global_context,
    "global_context_mul": _build_global_context_mul,
    "double_attention": _build_double_attention,
    "compact_generalized": _build_compact_generalized,
}
