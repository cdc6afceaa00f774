"""ModelConfig -> VideoClassifier."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from torch import nn

from nlnet.checks import Triple, odd, positive, triple
from nlnet.config import ModelConfig, NonLocalConfig, PytorchvideoConfig, ResNetConfig
from nlnet.errors import UsageError
from nlnet.model.classifier import Head, VideoClassifier
from nlnet.model.non_local.build import build_block, check_blocks
from nlnet.model.non_local.insertion import insert_non_local
from nlnet.model.resnet3d import STAGES, ResNet3d

if TYPE_CHECKING:
    from nlnet.model import pytorchvideo


def build_model(cfg: ModelConfig, num_classes: int) -> VideoClassifier:
    """The network that the config describes, with random weights, for `num_classes` classes.

    Raises UsageError, naming the key, for words and numbers that make no network.
    """
    check_blocks(cfg.non_local)  # also where none stands
    backbone, head = build_parts(cfg, num_classes)
    insert_non_local(
        backbone,
        placement(cfg.non_local),
        lambda stage, channels: build_stage_block(cfg.non_local, channels, stage),
    )
    return VideoClassifier(
        backbone,
        head,
        normalization=cfg.normalization,
        average=cfg.head_average,
        activation=cfg.activation,
    )


def build_parts(
    cfg: ModelConfig, num_classes: int
) -> tuple[ResNet3d | pytorchvideo.Backbone, nn.Module]:
    """The backbone, without non-local blocks, and the head."""
    if cfg.head_window is not None and (len(cfg.head_window) != 2 or min(cfg.head_window) < 1):
        raise UsageError(
            f"model.head_window={list(cfg.head_window)} wants two numbers above 0, [h, w], or null"
        )
    if not 0 <= cfg.dropout < 1:
        raise UsageError(f"model.dropout={cfg.dropout} wants a share from 0 to below 1")
    window = None if cfg.head_window is None else (cfg.head_window[0], cfg.head_window[1])
    match cfg:
        case ResNetConfig():
            backbone = build_resnet(cfg)
            return backbone, Head(backbone.channels["res5"], num_classes, cfg.dropout, window)
        case PytorchvideoConfig():
            from nlnet.model.pytorchvideo import build_network  # imports pytorchvideo: seconds

            return build_network(cfg.network, num_classes, dropout=cfg.dropout, window=window)
    raise TypeError(f"{type(cfg).__name__} is no network")


def build_resnet(cfg: ResNetConfig) -> ResNet3d:
    """A C2D or I3D ResNet."""
    conv1 = (
        triple("model.conv1_kernel", cfg.conv1_kernel),
        triple("model.conv1_stride", cfg.conv1_stride),
    )
    odd("model.conv1_kernel", cfg.conv1_kernel)
    positive("model.width", cfg.width)
    temporal_kernels: dict[str, list[int]] = asdict(cfg.temporal_kernels)
    for stage, pattern in temporal_kernels.items():
        odd(f"model.temporal_kernels.{stage}", pattern)
    pool2 = None
    if cfg.pool2_kernel is not None:
        pool2 = window("pool2", cfg.pool2_kernel, cfg.pool2_stride, cfg.pool2_padding)
    return ResNet3d(
        cfg.depth,
        temporal_kernels,
        width=cfg.width,
        conv1=conv1,
        pool1=window("pool1", cfg.pool1_kernel, cfg.pool1_stride, cfg.pool1_padding),
        pool2=pool2,
        inflate_conv=cfg.inflate_conv,
        stride_conv=cfg.stride_conv,
        norm=cfg.norm,
        zero_init_residual=cfg.zero_init_residual,
    )


def window(
    pool: str, kernel: list[int], stride: list[int], padding: list[int]
) -> tuple[Triple, Triple, Triple]:
    """The kernel, stride and padding of a max pool, which pads by half its kernel at most."""
    sizes = triple(f"model.{pool}_kernel", kernel)
    border = triple(f"model.{pool}_padding", padding, least=0)
    if any(2 * pad > size for pad, size in zip(border, sizes, strict=True)):
        raise UsageError(
            f"model.{pool}_padding={list(padding)} is above half of {pool}_kernel={list(kernel)}"
        )
    return sizes, triple(f"model.{pool}_stride", stride), border


def build_stage_block(cfg: NonLocalConfig, channels: int, stage: str) -> nn.Module:
    """A block with what the config says for this stage alone."""
    group_frames: dict[str, int | None] = asdict(cfg.group_frames)
    kernels: dict[str, list[int] | None] = asdict(cfg.stage_subsample_kernel)
    kernel = kernels[stage] or cfg.subsample_kernel
    return build_block(replace(cfg, subsample_kernel=kernel), channels, group_frames[stage])


def placement(cfg: NonLocalConfig) -> dict[str, list[int]]:
    """Stage -> indices of the residual blocks that a non-local block follows."""
    indices = (cfg.res2, cfg.res3, cfg.res4, cfg.res5)
    return dict(zip(STAGES, indices, strict=True))
