"""The networks of pytorchvideo's hub, as a backbone of named stages and a head.

This is the only file that imports pytorchvideo. The import takes seconds, so only the builder of
such a network imports this file. Weights: nlnet/weights/sources/pytorchvideo.py.
"""

import warnings
from collections.abc import Callable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.errors import choose
from nlnet.model.resnet3d import STAGES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pytorchvideo uses parts of torch that are deprecated now
    from pytorchvideo.models import hub

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "slow_r50": hub.slow_r50,
    "r2plus1d_r50": hub.r2plus1d_r50,
    "csn_r101": hub.csn_r101,
    "x3d_m": hub.x3d_m,
}


class PytorchvideoBackbone(nn.Module):
    """The stem and the four stages of a network, (B, 3, T, H, W) -> (B, C, T', H', W')."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.conv1 = blocks[0]
        self.channels: dict[str, int] = {}
        for stage, block in zip(STAGES, blocks[1:5], strict=True):
            layers = nn.Sequential()
            for i, layer in enumerate(cast(nn.ModuleList, block.res_blocks)):
                layers.add_module(f"block{i}", layer)
                last = cast(nn.Conv3d, layer.get_submodule("branch2.conv_c"))
                self.channels[stage] = last.out_channels
            self.add_module(stage, layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in STAGES:
            x = self.get_submodule(stage)(x)
        return x


class _WindowPool(nn.Module):
    """The mean over all frames and over each window (h, w), or over all positions (None).

    (B, C, T, H, W) -> (B, C, 1, H - h + 1, W - w + 1).
    """

    def __init__(self, window: tuple[int, int] | None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None:
            return x.mean(dim=(2, 3, 4), keepdim=True)
        return F.avg_pool2d(x.mean(dim=2), self.window, stride=1).unsqueeze(2)


class _WindowHead(nn.Module):
    """Pool, dropout, classifier: (B, C, T, H, W) -> logits of every window, (B, P, K)."""

    def __init__(self, head: nn.Module, dropout: float, window: tuple[int, int] | None) -> None:
        super().__init__()
        self.pool: nn.Module = _WindowPool(window)
        if not isinstance(head.pool, nn.AvgPool3d):  # x3d pools between two convolutions
            self.pool = cast(nn.Module, head.pool)
            self.pool.pool = _WindowPool(window)
        self.dropout = nn.Dropout(dropout)
        self.fc = cast(nn.Linear, head.proj)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.pool(x).flatten(2).mT))


def build_pytorchvideo(
    network: str, num_classes: int, *, dropout: float, window: tuple[int, int] | None
) -> tuple[PytorchvideoBackbone, _WindowHead]:
    """A network of pytorchvideo's hub, by its name in NETWORKS, with random weights.

    `window` is the (h, w) of the average pool at the end, None for all positions. Raises
    ArgumentError for an unknown name.
    """
    make = choose("network", network, NETWORKS)
    blocks = cast(nn.ModuleList, make(pretrained=False, model_num_class=num_classes).blocks)
    return PytorchvideoBackbone(blocks), _WindowHead(blocks[5], dropout, window)
