"""ModelConfig -> VideoClassifier, and what can be told of a network before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from nlnet.checks import Triple, odd, positive, section, triple
from nlnet.config import ModelConfig, PytorchvideoConfig, ResNetConfig
from nlnet.errors import UsageError
from nlnet.model.classifier import Head, VideoClassifier
from nlnet.model.cost import ClipSizeError, Stage, check_sizes, describe
from nlnet.model.non_local.build import check_blocks, insert_blocks
from nlnet.model.resnet3d import ResNet3d

if TYPE_CHECKING:
    from nlnet.model.pytorchvideo import PytorchvideoBackbone


def build_model(cfg: ModelConfig, num_classes: int) -> VideoClassifier:
    """The network of a config, with random weights, for `num_classes` classes.

    Raises UsageError that names the key of a wrong value.
    """
    check_blocks(cfg.non_local)  # also if there is no block
    with section("model"):
        backbone, head = _build_parts(cfg, num_classes)
        insert_blocks(backbone, backbone.channels, cfg.non_local)
        return VideoClassifier(
            backbone,
            head,
            normalization=cfg.normalization,
            head_average=cfg.head_average,
            activation=cfg.activation,
        )


def check_clips(cfg: ModelConfig, num_frames: int, crop_sizes: Iterable[int]) -> None:
    """Raise UsageError if clips of these sizes do not pass through the network of a config."""
    with _keys_of_clips():
        check_sizes(partial(build_model, cfg, num_classes=2), num_frames, crop_sizes)


def describe_model(
    cfg: ModelConfig, num_classes: int, *, num_frames: int, crop_size: int
) -> list[Stage]:
    """The cost of each stage of the network of a config, see nlnet/model/cost.py.

    Raises UsageError if clips of this size do not pass through the network.
    """
    with _keys_of_clips():
        return describe(partial(build_model, cfg, num_classes), num_frames, crop_size)


@contextmanager
def _keys_of_clips() -> Iterator[None]:
    """Add the keys to errors of a forward pass."""
    try:
        with section("model.non_local"):  # the blocks' arguments, such as group_frames
            yield
    except ClipSizeError as error:
        keys = "data.clip, model.pool2_kernel, model.head_window"
        raise UsageError(f"{error}; see {keys}") from error


def _build_parts(
    cfg: ModelConfig, num_classes: int
) -> tuple[ResNet3d | PytorchvideoBackbone, nn.Module]:
    """The backbone, without non-local blocks, and the head."""
    if cfg.head_window is not None and (len(cfg.head_window) != 2 or min(cfg.head_window) < 1):
        window = list(cfg.head_window)
        raise UsageError(f"model.head_window={window} must be two numbers above 0, [h, w], or null")
    if not 0 <= cfg.dropout < 1:
        raise UsageError(f"model.dropout={cfg.dropout} must be from 0 to below 1")
    size = None if cfg.head_window is None else (cfg.head_window[0], cfg.head_window[1])
    match cfg:
        case ResNetConfig():
            backbone = _build_resnet(cfg)
            return backbone, Head(backbone.channels["res5"], num_classes, cfg.dropout, size)
        case PytorchvideoConfig():
            from nlnet.model.pytorchvideo import build_pytorchvideo  # takes seconds

            return build_pytorchvideo(cfg.network, num_classes, dropout=cfg.dropout, window=size)
    raise TypeError(f"no network is built from {type(cfg).__name__}")


def _build_resnet(cfg: ResNetConfig) -> ResNet3d:
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
        pool2 = _pool_window("pool2", cfg.pool2_kernel, cfg.pool2_stride, cfg.pool2_padding)
    return ResNet3d(
        cfg.depth,
        temporal_kernels,
        width=cfg.width,
        conv1=conv1,
        pool1=_pool_window("pool1", cfg.pool1_kernel, cfg.pool1_stride, cfg.pool1_padding),
        pool2=pool2,
        inflate_conv=cfg.inflate_conv,
        stride_conv=cfg.stride_conv,
        norm=cfg.norm,
        zero_init_residual=cfg.zero_init_residual,
    )


def _pool_window(
    pool: str, kernel: list[int], stride: list[int], padding: list[int]
) -> tuple[Triple, Triple, Triple]:
    """Kernel, stride and padding of a max pool; the padding is at most half of the kernel."""
    sizes = triple(f"model.{pool}_kernel", kernel)
    border = triple(f"model.{pool}_padding", padding, least=0)
    if any(2 * pad > size for pad, size in zip(border, sizes, strict=True)):
        raise UsageError(
            f"model.{pool}_padding={list(padding)} is above half of {pool}_kernel={list(kernel)}"
        )
    return sizes, triple(f"model.{pool}_stride", stride), border
