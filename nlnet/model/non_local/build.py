"""NonLocalConfig -> a block; the dict of the family's members."""

from collections.abc import Callable
from dataclasses import asdict

from torch import nn

from nlnet.checks import one_of, positive, triple
from nlnet.config import NonLocalConfig
from nlnet.model.non_local.axes import AXES
from nlnet.model.non_local.block import (
    INITS,
    OUTPUT_NORMS,
    SUBSAMPLES,
    Embedding,
    Logits,
    NonLocalBlock,
    Output,
    Subsample,
)
from nlnet.model.non_local.compact_generalized import CompactGeneralizedBlock
from nlnet.model.non_local.double_attention import DoubleAttentionBlock
from nlnet.model.non_local.global_context import GlobalContextBlock, SimplifiedNonLocalBlock
from nlnet.model.non_local.pairwise import PAIRWISE


def check_blocks(cfg: NonLocalConfig) -> None:
    """Raise UsageError, naming the key, for a word or number that no block can have."""
    one_of("model.non_local.block", cfg.block, BLOCKS)
    one_of("model.non_local.pairwise", cfg.pairwise, PAIRWISE)
    one_of("model.non_local.axes", cfg.axes, AXES)
    one_of("model.non_local.subsample", cfg.subsample, SUBSAMPLES)
    one_of("model.non_local.norm", cfg.norm, OUTPUT_NORMS)
    one_of("model.non_local.init", cfg.init, INITS)
    positive("model.non_local.temperature", cfg.temperature)
    positive("model.non_local.ratio", cfg.ratio)
    triple("model.non_local.subsample_kernel", cfg.subsample_kernel)
    for stage, kernel in asdict(cfg.stage_subsample_kernel).items():
        if kernel is not None:
            triple(f"model.non_local.stage_subsample_kernel.{stage}", kernel)
    for stage, frames in asdict(cfg.group_frames).items():
        if frames is not None:
            positive(f"model.non_local.group_frames.{stage}", frames)


def build_block(cfg: NonLocalConfig, channels: int, group_frames: int | None) -> nn.Module:
    """The block that the config describes, for a stage of `channels` channels.

    `group_frames` is the stage's entry of cfg.group_frames. A member of the family reads the
    fields that its definition has; raises UsageError for unknown names.
    """
    build = one_of("model.non_local.block", cfg.block, BLOCKS)
    return build(cfg, channels, group_frames)


def non_local(cfg: NonLocalConfig, channels: int, group_frames: int | None) -> nn.Module:
    return NonLocalBlock(
        channels,
        pairwise=cfg.pairwise,
        axes=cfg.axes,
        group_frames=group_frames,
        logits=Logits(cfg.scale, cfg.temperature),
        embedding=embedding(cfg),
        subsample=Subsample(
            cfg.subsample, triple("model.non_local.subsample_kernel", cfg.subsample_kernel)
        ),
        output=output(cfg),
    )


def simplified(cfg: NonLocalConfig, channels: int, group_frames: int | None) -> nn.Module:
    return SimplifiedNonLocalBlock(
        channels,
        axes=cfg.axes,
        group_frames=group_frames,
        init=cfg.init,
        zero_init=cfg.zero_init,
    )


def global_context(cfg: NonLocalConfig, channels: int, group_frames: int | None) -> nn.Module:
    return gc_block(cfg, channels, group_frames, multiply=False)


def global_context_mul(cfg: NonLocalConfig, channels: int, group_frames: int | None) -> nn.Module:
    return gc_block(cfg, channels, group_frames, multiply=True)


def gc_block(
    cfg: NonLocalConfig, channels: int, group_frames: int | None, *, multiply: bool
) -> nn.Module:
    return GlobalContextBlock(
        channels,
        multiply=multiply,
        axes=cfg.axes,
        group_frames=group_frames,
        ratio=cfg.ratio,
        init=cfg.init,
        zero_init=cfg.zero_init,
    )


def double_attention(cfg: NonLocalConfig, channels: int, group_frames: int | None) -> nn.Module:
    return DoubleAttentionBlock(
        channels,
        axes=cfg.axes,
        group_frames=group_frames,
        embedding=embedding(cfg),
        output=output(cfg),
    )


def compact_generalized(cfg: NonLocalConfig, channels: int, group_frames: int | None) -> nn.Module:
    return CompactGeneralizedBlock(
        channels,
        axes=cfg.axes,
        group_frames=group_frames,
        ratio=cfg.ratio,
        init=cfg.init,
        zero_init=cfg.zero_init,
    )


def embedding(cfg: NonLocalConfig) -> Embedding:
    return Embedding(cfg.ratio, cfg.embedding_bias, cfg.shared_embedding, cfg.init)


def output(cfg: NonLocalConfig) -> Output:
    return Output(cfg.out_bias, cfg.norm, cfg.zero_init, cfg.gamma)


BLOCKS: dict[str, Callable[[NonLocalConfig, int, int | None], nn.Module]] = {
    "non_local": non_local,
    "simplified": simplified,
    "global_context": global_context,
    "global_context_mul": global_context_mul,
    "double_attention": double_attention,
    "compact_generalized": compact_generalized,
}
