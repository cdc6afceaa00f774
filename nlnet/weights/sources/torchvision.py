"""torchvision: ResNets for images, which start video networks."""

from nlnet.checks import one_of
from nlnet.config import ResNetConfig
from nlnet.weights.code_base import CodeBase, Publisher
from nlnet.weights.keymap import Format

TORCHVISION = Format(
    "torchvision",
    {
        "backbone.conv1": "conv1",
        "backbone.norm1": "bn1",
        "backbone.res{s}.block{i}.conv_{k}": "layer{l}.{i}.conv{n}",
        "backbone.res{s}.block{i}.norm_{k}": "layer{l}.{i}.bn{n}",
        "backbone.res{s}.block{i}.shortcut": "layer{l}.{i}.downsample.0",
        "backbone.res{s}.block{i}.shortcut_norm": "layer{l}.{i}.downsample.1",
        "head.fc": "fc",
    },
    images=True,
)


def from_torchvision(depth: int) -> ResNetConfig:
    """Return the C2D network that an image ResNet is: without pooling over time, for one frame."""
    return ResNetConfig(
        depth=one_of("depth", depth, {50: 50, 101: 101, 152: 152}),
        pool2_kernel=None,
        zero_init_residual=False,
    )


PUBLISHER = Publisher(
    "https://download.pytorch.org/models/",
    "BSD 3-Clause; trained on ImageNet, whose terms are non-commercial",
    {
        "resnet50": "resnet50-0676ba61.pth",
        "resnet50_v2": "resnet50-11ad3fa6.pth",
        "resnet101": "resnet101-63fe2227.pth",
        "resnet101_v2": "resnet101-cd907fc2.pth",
        "resnet152": "resnet152-394f9c45.pth",
        "resnet152_v2": "resnet152-f82ba261.pth",
    },
)
CODE_BASE = CodeBase(
    formats={"torchvision": TORCHVISION},
    read_settings=lambda facts: from_torchvision(facts["depth"]),
    undetermined=("dropout", "head_window", "head_average", "activation", "normalization"),
    publisher=PUBLISHER,
)
