"""The ResNet: shapes, numbers of layers, temporal kernels, the direction of time."""

import pytest
import torch

from nlnet.errors import ArgumentError
from nlnet.model.resnet3d import DEPTHS, ResNet3d

C2D = {"res2": [1], "res3": [1], "res4": [1], "res5": [1]}
I3D = {"res2": [3], "res3": [3, 1], "res4": [3, 1], "res5": [1, 3]}
CONV1 = {1: ((1, 7, 7), (1, 2, 2)), 5: ((5, 7, 7), (1, 2, 2))}


def temporal_kernels(net: ResNet3d, stage: str, conv: str = "conv_a") -> list[int]:
    return [getattr(block, conv).kernel_size[0] for block in getattr(net, stage)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_is_the_number_of_layers(depth: int):
    with torch.device("meta"):
        net = ResNet3d(depth, C2D)
    blocks = sum(len(getattr(net, stage)) for stage in C2D)
    assert 3 * blocks + 2 == depth  # conv1, three per block, the classifier


def test_a_pattern_repeats_over_the_blocks_of_its_stage():
    with torch.device("meta"):
        net = ResNet3d(101, I3D, conv1=CONV1[5])
    assert temporal_kernels(net, "res2") == [3, 3, 3]
    assert temporal_kernels(net, "res3") == [3, 1, 3, 1]
    assert temporal_kernels(net, "res4") == [3 if i % 2 == 0 else 1 for i in range(23)]
    assert temporal_kernels(net, "res5") == [1, 3, 1]


def test_inflate_conv_names_the_inflated_convolution():
    with torch.device("meta"):
        net = ResNet3d(50, I3D, inflate_conv="b")
    assert temporal_kernels(net, "res3", "conv_a") == [1, 1, 1, 1]
    assert temporal_kernels(net, "res3", "conv_b") == [3, 1, 3, 1]


@pytest.mark.parametrize(
    ("stem", "sizes"),
    [
        ({}, {"pool1": (8, 56), "res2": (8, 56), "res3": (4, 28), "res4": (4, 14), "res5": (4, 7)}),
        (
            {"pool1": ((1, 3, 3), (1, 2, 2), (0, 0, 0))},  # the authors' 8-frame stem
            {"pool1": (8, 55), "res2": (8, 55), "res3": (4, 28), "res4": (4, 14), "res5": (4, 7)},
        ),
        ({"pool2": None}, {"pool1": (8, 56), "res3": (8, 28), "res5": (8, 7)}),
    ],
    ids=["padded", "unpadded", "no pool2"],
)
def test_sizes_of_the_stages(stem: dict, sizes: dict[str, tuple[int, int]]):
    with torch.device("meta"):
        net = ResNet3d(50, C2D, **stem)
        seen = {}
        for name in sizes:
            net.get_submodule(name).register_forward_hook(
                lambda module, x, y, name=name: seen.__setitem__(name, (y.shape[2], y.shape[3]))
            )
        net(torch.empty(1, 3, 8, 224, 224))
    assert seen == sizes


def test_the_stem_of_the_paper_reduces_32_frames_to_4():
    with torch.device("meta"):
        net = ResNet3d(
            50,
            C2D,
            conv1=((1, 7, 7), (2, 2, 2)),
            pool1=((3, 3, 3), (2, 2, 2), (1, 1, 1)),
            pool2=((3, 1, 1), (2, 1, 1), (1, 0, 0)),
        )
        assert net(torch.empty(1, 3, 32, 224, 224)).shape == (1, 2048, 4, 7, 7)


@pytest.mark.parametrize("frames", [4, 8])
def test_c2d_does_not_distinguish_the_directions_of_time(frames: int):
    torch.manual_seed(0)
    net = ResNet3d(14, C2D, width=8, zero_init_residual=False).eval()
    x = torch.randn(1, 3, frames, 32, 32)
    forward, backward = net(x), net(x.flip(2)).flip(2)
    assert torch.allclose(forward, backward, atol=1e-6)


def test_i3d_distinguishes_the_directions_of_time():
    torch.manual_seed(0)
    net = ResNet3d(14, I3D, width=8, conv1=CONV1[5], zero_init_residual=False).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    forward, backward = net(x), net(x.flip(2)).flip(2)
    assert (forward - backward).abs().max() > 1e-2 * forward.abs().max()


def test_frozen_norms_equal_batch_norm_in_evaluation_and_do_not_learn():
    torch.manual_seed(0)
    batch = ResNet3d(14, C2D, width=8)
    with torch.no_grad():
        for _ in range(3):
            batch(torch.randn(2, 3, 4, 32, 32))
    frozen = ResNet3d(14, C2D, width=8, norm="frozen").train()
    frozen.load_state_dict(batch.state_dict())
    x = torch.randn(2, 3, 4, 32, 32)
    assert torch.allclose(frozen(x), batch.eval()(x), atol=1e-5)
    learning = {name for name, p in frozen.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in frozen.named_parameters() if "norm" not in name}


@pytest.mark.parametrize(
    ("keywords", "key"),
    [
        ({"depth": 34}, "depth"),
        ({"norm": "instance"}, "norm"),
        ({"inflate_conv": "c"}, "inflate_conv"),
        ({"stride_conv": "c"}, "stride_conv"),
    ],
)
def test_an_unknown_value_is_reported_with_its_argument(keywords: dict, key: str):
    with pytest.raises(ArgumentError, match=f"^{key}="):
        ResNet3d(**{"depth": 14, "temporal_kernels": C2D, **keywords})
