"""Modules that replace those of a ResNet for training, and keep one feature map per convolution.

They have the children, parameters and names of the modules that they replace. Outputs, gradients
and running statistics are equal to those of the plain modules up to rounding.
"""

from torch import Tensor, nn

from nlnet.model.classifier import VideoClassifier
from nlnet.model.resnet3d import Bottleneck, ResNet3d, add_relu
from nlnet.model.speed.lean_functions import lean_convolution, lean_pool


def make_lean(model: VideoClassifier) -> None:
    """Replace the ResNet and the residual blocks of a model; other networks do not change."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Bottleneck):
            model.set_submodule(name, LeanBottleneck(module))
    if isinstance(model.backbone, ResNet3d):
        model.backbone = LeanResNet3d(model.backbone)


def lean_convolutions(model: nn.Module) -> set[str]:
    """The names of the convolutions that lean modules compute."""
    blocks = [name for name, part in model.named_modules() if isinstance(part, LeanBottleneck)]
    names = ("conv_a", "conv_b", "conv_c", "shortcut")
    return {f"{block}.{name}" for block in blocks for name in names}


class LeanBottleneck(nn.Module):
    """`Bottleneck` that computes the inputs of its convolutions again in the backward pass."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.training = block.training
        self.conv_a, self.norm_a = block.conv_a, block.norm_a
        self.conv_b, self.norm_b = block.conv_b, block.norm_b
        self.conv_c, self.norm_c = block.conv_c, block.norm_c
        self.shortcut, self.shortcut_norm = block.shortcut, block.shortcut_norm

    def forward(self, x: Tensor) -> Tensor:
        y = lean_convolution(x, self.conv_a)
        y = lean_convolution(y, self.conv_b, norm_in=self.norm_a)
        y = lean_convolution(y, self.conv_c, norm_in=self.norm_b, norm_out=self.norm_c)
        if self.shortcut is not None:
            x = lean_convolution(x, self.shortcut, norm_out=self.shortcut_norm)
        return add_relu(y, x)


class LeanResNet3d(nn.Module):
    """`ResNet3d` that computes the inputs of its max pools again in the backward pass."""

    def __init__(self, backbone: ResNet3d) -> None:
        super().__init__()
        self.training = backbone.training
        self.channels = backbone.channels
        self.conv1, self.norm1 = backbone.conv1, backbone.norm1
        self.pool1, self.pool2 = backbone.pool1, backbone.pool2
        self.res2, self.res3 = backbone.res2, backbone.res3
        self.res4, self.res5 = backbone.res4, backbone.res5

    def forward(self, x: Tensor) -> Tensor:
        x = lean_pool(self.conv1(x), self.pool1, norm_in=self.norm1)
        x = lean_pool(self.res2(x), self.pool2)
        x = self.res3(x)
        x = self.res4(x)
        return self.res5(x)
