"""C2D and inflated-3D (I3D) ResNets: one network, told apart by a table of temporal kernels.

Shapes: (B, C, T, H, W). A kernel, stride or padding is written (t, h, w).
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.checks import one_of
from nlnet.model.norm import NORMS, Norm
from nlnet.model.speed.lean import lean_convolution, lean_pool, plain_convolution, plain_pool

DEPTHS: dict[int, tuple[int, int, int, int]] = {  # residual blocks of res2, res3, res4, res5
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STAGES = ("res2", "res3", "res4", "res5")


class Bottleneck(nn.Module):
    """1x1x1, 1x3x3 and 1x1x1 convolutions around a shortcut.

    `temporal_kernel` inflates conv_a (3x1x1) or conv_b (3x3x3). Source: He et al. 2016; the
    inflation is section 4 of Wang et al. 2018.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        temporal_kernel: int = 1,
        inflate_conv: str = "a",
        stride_conv: str = "b",
        norm: Norm = nn.BatchNorm3d,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        inner = channels // 4
        kernel_a = temporal_kernel if inflate_conv == "a" else 1
        kernel_b = temporal_kernel if inflate_conv == "b" else 1
        stride_a = stride if stride_conv == "a" else 1
        stride_b = stride if stride_conv == "b" else 1
        self.conv_a = conv3d(in_channels, inner, (kernel_a, 1, 1), (1, stride_a, stride_a))
        self.norm_a = norm(inner)
        self.conv_b = conv3d(inner, inner, (kernel_b, 3, 3), (1, stride_b, stride_b))
        self.norm_b = norm(inner)
        self.conv_c = conv3d(inner, channels, (1, 1, 1), (1, 1, 1))
        self.norm_c = norm(channels)
        self.lean = False  # keep fewer maps for the backward pass
        self.shortcut: nn.Conv3d | None = None
        self.shortcut_norm: nn.Module | None = None
        if in_channels != channels or stride != 1:
            self.shortcut = conv3d(in_channels, channels, (1, 1, 1), (1, stride, stride))
            self.shortcut_norm = norm(channels)
        last = self.norm_c.get_parameter("weight")
        if zero_init and last.requires_grad:  # a frozen 0 would stay for ever
            nn.init.zeros_(last)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, T, H, W) -> (B, C, T, H/s, W/s)
        convolve = lean_convolution if self.lean else plain_convolution
        y = convolve(x, self.conv_a)
        y = convolve(y, self.conv_b, norm_in=self.norm_a)
        y = convolve(y, self.conv_c, norm_in=self.norm_b, norm_out=self.norm_c)
        if self.shortcut is not None:
            x = convolve(x, self.shortcut, norm_out=self.shortcut_norm)
        return F.relu(y.add_(x) if y.dtype == x.dtype else y + x, inplace=True)


class ResNet3d(nn.Module):
    """A ResNet over clips, (B, 3, T, H, W) -> (B, 32 width, T', H', W').

    `temporal_kernels` names the stages res2 to res5; a pattern repeats over the blocks of its
    stage, so [3, 1] inflates every other one and [1] none (C2D). `pool2_kernel` None leaves the
    number of frames alone behind res2. Sources: Wang et al. 2018, table 1 and section 4; the
    strides and paddings in which published networks differ are keywords.
    """

    res2: nn.Sequential
    res3: nn.Sequential
    res4: nn.Sequential
    res5: nn.Sequential

    def __init__(
        self,
        depth: int,
        temporal_kernels: Mapping[str, Sequence[int]],
        *,
        width: int = 64,
        conv1: tuple[Sequence[int], Sequence[int]] = ((1, 7, 7), (1, 2, 2)),
        pool1: tuple[Sequence[int], ...] = ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        pool2: tuple[Sequence[int], ...] | None = ((2, 1, 1), (2, 1, 1), (0, 0, 0)),
        inflate_conv: str = "a",
        stride_conv: str = "b",
        norm: str = "batch",
        zero_init_residual: bool = True,
    ) -> None:
        """`conv1` is its kernel and stride; `pool1` and `pool2` are kernel, stride and padding."""
        super().__init__()
        make_norm = one_of("model.norm", norm, NORMS)
        one_of("model.inflate_conv", inflate_conv, {"a": 0, "b": 0})
        one_of("model.stride_conv", stride_conv, {"a": 0, "b": 0})
        blocks = one_of("model.depth", depth, DEPTHS)
        self.channels = {stage: 4 * width * 2**i for i, stage in enumerate(STAGES)}
        self.lean = False  # keep fewer maps for the backward pass
        self.conv1 = conv3d(3, width, *conv1)
        self.norm1 = make_norm(width)
        self.pool1 = max_pool3d(pool1)
        self.pool2 = nn.Identity() if pool2 is None else max_pool3d(pool2)
        in_channels = width
        for stage, num_blocks in zip(STAGES, blocks, strict=True):
            layers = nn.Sequential()
            for i in range(num_blocks):
                pattern = temporal_kernels[stage]
                block = Bottleneck(
                    in_channels,
                    self.channels[stage],
                    stride=2 if i == 0 and stage != "res2" else 1,
                    temporal_kernel=pattern[i % len(pattern)],
                    inflate_conv=inflate_conv,
                    stride_conv=stride_conv,
                    norm=make_norm,
                    zero_init=zero_init_residual,
                )
                layers.add_module(f"block{i}", block)
                in_channels = self.channels[stage]
            self.add_module(stage, layers)

    def forward(self, x: Tensor) -> Tensor:
        pool = lean_pool if self.lean else plain_pool
        x = pool(self.conv1(x), self.pool1, norm_in=self.norm1)
        x = pool(self.res2(x), self.pool2)
        return self.res5(self.res4(self.res3(x)))


def conv3d(
    in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Conv3d:
    """A convolution without bias, padded to keep the size at stride 1; He initialisation."""
    frames, height, width = kernel
    conv = nn.Conv3d(
        in_channels,
        out_channels,
        (frames, height, width),
        (stride[0], stride[1], stride[2]),
        padding=(frames // 2, height // 2, width // 2),
        bias=False,
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def max_pool3d(window: Sequence[Sequence[int]]) -> nn.MaxPool3d:
    """A max pool from kernel, stride and padding, each (t, h, w)."""
    kernel, stride, padding = (tuple(size) for size in window)
    return nn.MaxPool3d(kernel, stride, padding)
