"""C2D and inflated 3-D (I3D) ResNets: one network, whose temporal kernels are its arguments.

Shapes are (B, C, T, H, W). A kernel, stride or padding is (t, h, w).
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.errors import choose
from nlnet.model.norm import NORMS, Norm

DEPTHS: dict[int, tuple[int, int, int, int]] = {  # residual blocks of res2, res3, res4, res5
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
Size = tuple[int, int, int]  # (t, h, w)
STAGES = ("res2", "res3", "res4", "res5")
CONVOLUTIONS = {"a": "conv_a", "b": "conv_b"}  # of a bottleneck, by the words of the arguments


class Bottleneck(nn.Module):
    """A residual block: convolutions of 1x1x1, 1x3x3 and 1x1x1 with a shortcut.

    (B, C_in, T, H, W) -> (B, C, T, H / stride, W / stride). `temporal_kernel` inflates conv_a (to
    3x1x1) or conv_b (to 3x3x3). Source: He et al. 2016; Wang et al. 2018, section 4 (inflation).
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
        self.conv_a = _conv3d(in_channels, inner, (kernel_a, 1, 1), (1, stride_a, stride_a))
        self.norm_a = norm(inner)
        self.conv_b = _conv3d(inner, inner, (kernel_b, 3, 3), (1, stride_b, stride_b))
        self.norm_b = norm(inner)
        self.conv_c = _conv3d(inner, channels, (1, 1, 1), (1, 1, 1))
        self.norm_c = norm(channels)
        self.shortcut: nn.Conv3d | None = None
        self.shortcut_norm: nn.Module | None = None
        if in_channels != channels or stride != 1:
            self.shortcut = _conv3d(in_channels, channels, (1, 1, 1), (1, stride, stride))
            self.shortcut_norm = norm(channels)
        last = self.norm_c.get_parameter("weight")
        if zero_init and last.requires_grad:  # the weight of a frozen norm would stay 0
            nn.init.zeros_(last)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm_a(self.conv_a(x)), inplace=True)
        y = F.relu(self.norm_b(self.conv_b(y)), inplace=True)
        y = self.norm_c(self.conv_c(y))
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return add_relu(y, x)


class ResNet3d(nn.Module):
    """A ResNet over clips, (B, 3, T, H, W) -> (B, 32 width, T', H', W').

    `temporal_kernels` maps each of the stages res2 to res5 to a pattern that repeats over its
    blocks: [3, 1] inflates every other block, [1] none (C2D). If `pool2` is None, the number of
    frames is not reduced after res2. Raises ArgumentError for an unknown depth, norm or
    convolution. Source: Wang et al. 2018, table 1 and section 4; the strides and paddings in which
    published networks differ are arguments.
    """

    def __init__(
        self,
        depth: int,
        temporal_kernels: Mapping[str, Sequence[int]],
        *,
        width: int = 64,
        conv1: tuple[Size, Size] = ((1, 7, 7), (1, 2, 2)),
        pool1: tuple[Size, Size, Size] = ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        pool2: tuple[Size, Size, Size] | None = ((2, 1, 1), (2, 1, 1), (0, 0, 0)),
        inflate_conv: str = "a",
        stride_conv: str = "b",
        norm: str = "batch",
        zero_init_residual: bool = True,
    ) -> None:
        """`conv1` is (kernel, stride); `pool1` and `pool2` are (kernel, stride, padding)."""
        super().__init__()
        make_norm = choose("norm", norm, NORMS)
        choose("inflate_conv", inflate_conv, CONVOLUTIONS)
        choose("stride_conv", stride_conv, CONVOLUTIONS)
        blocks = choose("depth", depth, DEPTHS)
        self.channels = {stage: 4 * width * 2**i for i, stage in enumerate(STAGES)}
        self.conv1 = _conv3d(3, width, *conv1)
        self.norm1 = make_norm(width)
        self.pool1 = nn.MaxPool3d(*pool1)
        self.pool2 = nn.Identity() if pool2 is None else nn.MaxPool3d(*pool2)
        stages = []
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
            stages.append(layers)
        self.res2, self.res3, self.res4, self.res5 = stages

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(F.relu(self.norm1(self.conv1(x)), inplace=True))
        x = self.pool2(self.res2(x))
        x = self.res3(x)
        x = self.res4(x)
        return self.res5(x)


def add_relu(y: Tensor, x: Tensor) -> Tensor:
    """relu(y + x), written into y."""
    # Under autocast, x can be float32 and y bfloat16: their sum is float32.
    return F.relu(y.add_(x) if y.dtype == x.dtype else y + x, inplace=True)


def _conv3d(in_channels: int, out_channels: int, kernel: Size, stride: Size) -> nn.Conv3d:
    """A convolution without bias that keeps the size at stride 1; He initialization."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
