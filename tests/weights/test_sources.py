"""Every setting of the published code bases, compared with its meaning there."""

from dataclasses import asdict, replace
from math import prod
from typing import Any

import pytest
import torch
import torchvision

from nlnet.config import NonLocalConfig, ResNetConfig, StageFrames
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.resnet3d import DEPTHS
from nlnet.weights.rewrite import export_state, import_state
from nlnet.weights.sources.caffe2 import from_caffe2
from nlnet.weights.sources.mmaction2 import from_mmaction2
from nlnet.weights.sources.pytorchvideo import from_pytorchvideo
from nlnet.weights.sources.slowfast import from_slowfast
from nlnet.weights.sources.torchvision import from_torchvision

Settings = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]

CAFFE2_MODEL = {
    "MODEL_NAME": "resnet_video",
    "DEPTH": 50,
    "VIDEO_ARC_CHOICE": 2,
    "USE_AFFINE": False,
    "BN_INIT_GAMMA": 0.0,
    "BN_EPSILON": 1.0000001e-05,
}
CAFFE2_BLOCKS = {
    "CONV3_NONLOCAL": True,
    "CONV4_NONLOCAL": True,
    "LAYER_MOD": 2,
    "NO_BIAS": 0,
    "USE_MAXPOOL": True,
    "USE_SOFTMAX": True,
    "USE_SCALE": True,
    "USE_BN": True,
    "USE_AFFINE": False,
    "USE_ZERO_INIT_CONV": False,
    "BN_INIT_GAMMA": 0.0,
    "BN_EPSILON": 1.0000001e-05,
}


def shapes(config: ResNetConfig, form: str, *, frames: bool = True) -> Shapes:
    """Names and shapes of our network's tensors in another code base's format."""
    with torch.device("meta"):
        state = build_model(config, 400).state_dict()
    return {name: tuple(t.shape) for name, t in export_state(state, form, frames=frames).items()}


def caffe2(model: Settings | None = None, **blocks: Any) -> Shapes:
    settings = {**CAFFE2_MODEL, **(model or {})}
    return shapes(from_caffe2(settings, {**CAFFE2_BLOCKS, **blocks}), "caffe2")


def places(found: Shapes) -> list[str]:
    ending = "_out_w"
    return [name.removesuffix(ending) for name in found if name.endswith(ending)]


@pytest.mark.parametrize(
    ("depth", "mod", "res3", "res4"),
    [
        (50, 1, [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
        (50, 2, [1, 3], [1, 3, 5]),
        (50, 3, [2], [2, 5]),
        (50, 5, [], [4]),
        (101, 1, [1, 3], [2, 5, 8, 11, 14, 17, 20]),  # nine, not ten
        (101, 2, [1, 3], [6, 13, 20]),
    ],
)
def test_caffe2_positions(depth: int, mod: int, res3: list[int], res4: list[int]):
    found = caffe2({"DEPTH": depth, "VIDEO_ARC_CHOICE": 2 if depth == 50 else 4}, LAYER_MOD=mod)
    expected = [f"nonlocal_conv3_{i}" for i in res3] + [f"nonlocal_conv4_{i}" for i in res4]
    assert places(found) == expected


def test_caffe2_stages_without_blocks():
    assert places(caffe2(CONV3_NONLOCAL=False)) == [f"nonlocal_conv4_{i}" for i in (1, 3, 5)]
    assert places(caffe2(CONV4_NONLOCAL=False)) == [f"nonlocal_conv3_{i}" for i in (1, 3)]


def block_leaves(found: Shapes) -> set[str]:
    prefix = "nonlocal_conv4_3_"
    return {name.removeprefix(prefix) for name in found if name.startswith(prefix)}


CONVS = {f"{part}_w" for part in ("theta", "phi", "g", "out")}
BIASES = {f"{part}_b" for part in ("theta", "phi", "g", "out")}
AFFINE = {"bn_s", "bn_b"}
BATCH_NORM = AFFINE | {"bn_rm", "bn_riv"}


@pytest.mark.parametrize(
    ("settings", "leaves"),
    [
        ({}, CONVS | BIASES | BATCH_NORM),
        ({"NO_BIAS": 1}, CONVS | BATCH_NORM),
        ({"USE_BN": False}, CONVS | BIASES),
        ({"USE_BN": False, "USE_AFFINE": True}, CONVS | BIASES | AFFINE),
        ({"USE_BN": False, "NO_BIAS": 1, "USE_ZERO_INIT_CONV": True}, CONVS),
        ({"USE_SOFTMAX": False, "USE_MAXPOOL": False}, CONVS | BIASES | BATCH_NORM),
    ],
)
def test_caffe2_blocks_have_the_tensors_of_their_settings(settings: Settings, leaves: set[str]):
    assert block_leaves(caffe2(**settings)) == leaves


def test_caffe2_settings_that_add_no_tensors():
    def blocks(**settings: Any) -> NonLocalConfig:
        return from_caffe2(CAFFE2_MODEL, {**CAFFE2_BLOCKS, **settings}).non_local

    assert blocks().scale and not blocks(USE_SCALE=False).scale
    assert blocks(USE_SOFTMAX=False).pairwise == "dot_product"
    assert blocks(USE_MAXPOOL=False).subsample == "none"
    assert blocks().group_frames == StageFrames()
    affine = from_caffe2({**CAFFE2_MODEL, "USE_AFFINE": True}, CAFFE2_BLOCKS)
    assert affine.non_local.group_frames == StageFrames(res3=4) and affine.norm == "affine"


@pytest.mark.parametrize("mode", ["batch", "affine", "affine_block"])
def test_caffe2_affine_networks_have_no_statistics(mode: str):
    found = caffe2(
        {"USE_AFFINE": mode != "batch"},
        USE_BN=mode == "batch",
        USE_AFFINE=mode == "affine_block",
    )
    assert any(name.endswith("_riv") for name in found) is (mode == "batch")
    # the authors count every scale and bias of the affine networks as learnable
    learnable = sum(prod(s) for name, s in found.items() if not name.endswith(("_rm", "_riv")))
    assert (
        learnable == {"batch": 35_401_936, "affine": 35_393_744, "affine_block": 35_401_936}[mode]
    )


@pytest.mark.parametrize(
    ("arc", "depth", "first"), [(1, 50, 1), (2, 50, 5), (3, 101, 1), (4, 101, 5)]
)
@pytest.mark.parametrize("name", ["resnet_video", "resnet_video_org"])
def test_caffe2_architectures(arc: int, depth: int, first: int, name: str):
    model = {**CAFFE2_MODEL, "VIDEO_ARC_CHOICE": arc, "DEPTH": depth, "MODEL_NAME": name}
    found = caffe2(model)
    assert found["conv1_w"] == (64, 3, first, 7, 7)
    inflated = [n for n, s in found.items() if n.endswith("branch2a_w") and s[2] == 3]
    per_stage = [sum(n.startswith(f"res{s}_") for n in inflated) for s in (2, 3, 4, 5)]
    assert per_stage == ([0] * 4 if first == 1 else [3, 2, 3 if depth == 50 else 12, 1])
    config = from_caffe2(model, CAFFE2_BLOCKS)
    time = 2 if name == "resnet_video_org" else 1
    assert (config.conv1_stride, config.pool1_kernel) == ([time, 2, 2], [time, 3, 3])
    assert config.pool1_padding == [0, 0, 0]


@pytest.mark.parametrize(
    ("model", "blocks", "word"),
    [
        ({"DEPTH": 101}, {}, "DEPTH"),
        ({"BN_EPSILON": 1e-3}, {}, "MODEL.BN_EPSILON"),
        ({}, {"BN_EPSILON": 1e-3}, "NONLOCAL.BN_EPSILON"),
        ({}, {"USE_AFFINE": True}, "USE_AFFINE"),
        ({"MODEL_NAME": "other"}, {}, "MODEL_NAME"),
        ({"USE_BGR": True}, {}, "USE_BGR"),
        ({"MEAN": 0.0}, {}, "MEAN"),
        ({"INVENTED": 1}, {}, "INVENTED"),
        ({}, {"CONV5_NONLOCAL": True}, "CONV5_NONLOCAL"),
    ],
)
def test_unsupported_caffe2_settings_are_refused(model: Settings, blocks: Settings, word: str):
    with pytest.raises(UserError, match=word):
        from_caffe2({**CAFFE2_MODEL, **model}, {**CAFFE2_BLOCKS, **blocks})


SLOWFAST = {
    "arch": "i3d",
    "depth": 50,
    "nonlocal_location": [[[]], [[1, 3]], [[1, 3, 5]], [[]]],
    "nonlocal_groups": [[1], [1], [1], [1]],
    "nonlocal_instantiation": "softmax",
    "nonlocal_pool": [[[1, 2, 2], [1, 2, 2]]] * 4,
    "num_block_temporal_kernel": [[3], [4], [6], [3]],
    "stride_in_1x1": False,
}


def slowfast(frames: int = 8, **settings: Any) -> ResNetConfig:
    return from_slowfast({**SLOWFAST, **settings}, frames)


@pytest.mark.parametrize(
    ("arch", "conv1", "kernels", "pools"),
    [
        ("2d", 1, (1, 1, 1, 1), False),
        ("c2d", 1, (1, 1, 1, 1), True),
        ("slow_c2d", 1, (1, 1, 1, 1), False),
        ("i3d", 5, (3, 3, 3, 1), True),
        ("c2d_nopool", 1, (1, 1, 1, 1), False),
        ("i3d_nopool", 5, (3, 3, 3, 1), False),
        ("slow_i3d", 5, (3, 3, 3, 1), False),
        ("slow", 1, (1, 1, 3, 3), False),
    ],
)
def test_slowfast_architectures(arch: str, conv1: int, kernels: tuple[int, ...], pools: bool):
    config = slowfast(arch=arch)
    found = shapes(config, "slowfast")
    assert found["s1.pathway0_stem.conv.weight"][2] == conv1
    first = [found[f"s{s}.pathway0_res0.branch2.a.weight"][2] for s in (2, 3, 4, 5)]
    assert tuple(first) == kernels
    assert (config.pool2_kernel is not None) is pools


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_slowfast_depths(depth: int):
    counts = {18: (2, 2, 2, 2), **DEPTHS}[depth]
    config = slowfast(
        depth=depth,
        nonlocal_location=[[[]], [[0]], [[1]], [[]]],
        num_block_temporal_kernel=[[count] for count in counts],
    )
    found = shapes(config, "slowfast")
    for stage, count in zip((2, 3, 4, 5), counts, strict=True):
        assert f"s{stage}.pathway0_res{count - 1}.branch2.c.weight" in found
        assert f"s{stage}.pathway0_res{count}.branch2.c.weight" not in found
    assert "s3.pathway0_nonlocal0.conv_theta.bias" in found


def test_slowfast_inflates_only_the_first_blocks():
    table = slowfast(num_block_temporal_kernel=[[1], [3], [2], [0]]).temporal_kernels
    assert table.res2 == [3, 1, 1] and table.res3 == [3, 1, 3, 1]
    assert table.res4 == [3, 1, 1, 1, 1, 1] and table.res5 == [1, 1, 1]


def test_slowfast_strides_pools_and_groups():
    assert slowfast(stride_in_1x1=True).stride_conv == "a"
    assert slowfast(nonlocal_pool=[[[1, 1, 1]]] * 4).non_local.subsample == "none"
    assert slowfast(nonlocal_pool=[[[2, 2, 2]]] * 4).non_local.subsample_kernel == [2, 2, 2]
    mixed = slowfast(nonlocal_pool=[[[1, 1, 1]], [[1, 2, 2]], [[2, 1, 1]], [[]]])
    backbone = build_model(mixed, 3).backbone
    kernels = [backbone.get_submodule(nl).subsample.kernel for nl in ("res3.nl1", "res4.nl5")]
    assert kernels == [(1, 2, 2), (2, 1, 1)]
    # PySlowFast sets the number of groups, nlnet the frames of a group
    grouped = slowfast(32, nonlocal_groups=[[1], [4], [2], [1]]).non_local.group_frames
    assert grouped == StageFrames(res3=4, res4=8)
    slow = slowfast(32, arch="slow", nonlocal_groups=[[1], [4], [1], [1]])
    assert slow.non_local.group_frames.res3 == 8
    assert slowfast(nonlocal_instantiation="dot_product").non_local.pairwise == "dot_product"
    everywhere = slowfast(nonlocal_location=[[[0]], [[]], [[]], [[2]]]).non_local
    assert (everywhere.res2, everywhere.res5) == ([0], [2])


def test_absent_slowfast_settings_have_their_defaults():
    bare = from_slowfast({"arch": "i3d", "depth": 50}, 8)
    assert bare == slowfast(nonlocal_location=[[[]]] * 4, nonlocal_instantiation="dot_product")
    assert not any("nonlocal" in name for name in shapes(bare, "slowfast"))
    deep = from_slowfast({"arch": "i3d", "depth": 101}, 8)
    assert deep.temporal_kernels.res4 == [3, 1] * 3 + [1] * 17


def test_slowfast_settings_of_the_backbone():
    thin = shapes(slowfast(width_per_group=32), "slowfast")
    assert thin["s1.pathway0_stem.conv.weight"][0] == 32
    assert thin["s5.pathway0_res2.branch2.c.weight"][:2] == (1024, 256)
    assert slowfast(head_act="sigmoid").activation == "sigmoid"
    assert not slowfast(zero_init_final_bn=False).zero_init_residual
    explicit = {
        "trans_func": "bottleneck_transform",
        "num_groups": 1,
        "spatial_strides": [[1], [2], [2], [2]],
        "spatial_dilations": ((1,), (1,), (1,), (1,)),
        "head_act": "softmax",
        "dropout_rate": 0.5,
        "epsilon": 1e-5,
    }
    assert slowfast(**explicit) == slowfast()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"trans_func": "basic_transform"}, "trans_func"),
        ({"num_groups": 32}, "num_groups"),
        ({"spatial_strides": [[1], [2], [2], [1]]}, "spatial_strides"),
        ({"spatial_dilations": [[1], [1], [1], [2]]}, "spatial_dilations"),
        ({"head_act": "relu"}, "HEAD_ACT"),
        ({"epsilon": 1e-3}, "epsilon"),
        ({"nonlocal_invented": 1}, "nonlocal_invented"),
        ({"arch": "slowfast"}, "ARCH"),
    ],
)
def test_unsupported_slowfast_settings_are_refused(settings: Settings, word: str):
    with pytest.raises(UserError, match=word):
        slowfast(**settings)


HEAD = {"type": "I3DHead", "spatial_type": "avg"}


def mmaction2(kind: str = "ResNet3d", head: Settings = HEAD, **settings: Any) -> ResNetConfig:
    return from_mmaction2({"type": kind, **settings}, head)


@pytest.mark.parametrize(
    ("mode", "extra"),
    [
        ("gaussian", set()),
        ("embedded_gaussian", {"theta", "phi"}),
        ("dot_product", {"theta", "phi"}),
        ("concatenation", {"theta", "phi", "concat_project"}),
    ],
)
@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize("norm", [None, {"type": "BN3d"}])
@pytest.mark.parametrize("reduction", [1, 2, 3, 4, 7])
def test_mmaction2_blocks(
    mode: str, extra: set[str], sub_sample: bool, norm: Settings | None, reduction: int
):
    config = mmaction2(
        non_local=((0, 0, 0), (0, 1, 0, 0), 0, 0),
        non_local_cfg={
            "mode": mode,
            "sub_sample": sub_sample,
            "norm_cfg": norm,
            "reduction": reduction,
            "use_scale": False,
        },
    )
    found = shapes(config, "mmaction2_pooled" if sub_sample else "mmaction2")
    prefix = "backbone.layer2.1.non_local_block."
    block = {n.removeprefix(prefix): s for n, s in found.items() if n.startswith(prefix)}
    assert {name.split(".")[0] for name in block} == {"g", "conv_out", *extra}
    inner = 512 // reduction
    pooled = ".0" if sub_sample else ""
    assert block[f"g{pooled}.conv.weight"] == (inner, 512, 1, 1, 1)
    assert block[f"g{pooled}.conv.bias"] == (inner,)
    assert block["conv_out.conv.weight"] == (512, inner, 1, 1, 1)
    assert ("conv_out.conv.bias" in block) is (norm is None)
    assert ("conv_out.bn.running_var" in block) is (norm is not None)
    if "phi" in extra:
        assert f"phi{pooled}.conv.weight" in block and "theta.conv.weight" in block
    if mode == "concatenation":
        assert block["concat_project.conv.weight"] == (1, 2 * inner, 1, 1)


def test_mmaction2_flags_set_their_blocks():
    config = mmaction2(
        depth=101,
        inflate=(1, (1, 0, 0, 1), 0, (0, 1, 0)),
        inflate_style="3x3x3",
        style="caffe",
        conv1_kernel=(3, 7, 7),
        conv1_stride_t=2,
        pool1_stride_t=2,
        with_pool2=False,
        non_local=(0, (1, 0, 0, 1), 0, 0),
        non_local_cfg={"use_scale": True},
        base_channels=32,
    )
    assert config.temporal_kernels.res2 == [3, 3, 3]
    assert config.temporal_kernels.res3 == [3, 1, 1, 3]
    assert config.temporal_kernels.res4 == [1] * 23
    assert config.inflate_conv == "b" and config.stride_conv == "a"
    assert (config.conv1_stride, config.pool1_stride) == ([2, 2, 2], [2, 2, 2])
    assert config.pool2_kernel is None and config.width == 32
    assert config.non_local.res3 == [0, 3] and config.non_local.res4 == []
    found = shapes(config, "mmaction2")
    assert found["backbone.conv1.conv.weight"] == (32, 3, 3, 7, 7)
    assert found["backbone.layer2.0.conv2.conv.weight"] == (64, 64, 3, 3, 3)


def test_mmaction2_without_pooling():
    bare = mmaction2(with_pool1=False, conv1_stride_s=1)
    model = build_model(replace(bare, depth=14), 3).eval()
    with torch.no_grad():
        assert model.backbone(torch.randn(1, 3, 4, 16, 16)).shape == (1, 2048, 2, 2, 2)


@pytest.mark.parametrize("kind", ["ResNet3d", "ResNet3dSlowOnly", "C2D", "ResNet"])
def test_mmaction2_defaults(kind: str):
    config = mmaction2(kind)
    kernels = {stage: pattern[0] for stage, pattern in asdict(config.temporal_kernels).items()}
    assert config.conv1_kernel[0] == (3 if kind == "ResNet3d" else 1)
    assert (
        list(kernels.values())
        == {
            "ResNet3d": [3, 3, 3, 3],
            "ResNet3dSlowOnly": [1, 1, 3, 3],
            "C2D": [1, 1, 1, 1],
            "ResNet": [1, 1, 1, 1],
        }[kind]
    )
    assert (config.pool2_kernel is None) is (kind in ("ResNet3dSlowOnly", "ResNet"))
    assert config.pool1_padding == ([0, 0, 0] if kind == "C2D" else [0, 1, 1])


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"temporal_strides": (1, 1, 2, 2)}, "temporal_strides"),
        ({"lateral": True}, "lateral"),
        ({"invented": 1}, "invented"),
        ({"norm_cfg": {"type": "BN3d", "eps": 1e-3}}, "eps"),
        ({"non_local_cfg": {"invented": 1}}, "invented"),
        ({"inflate_style": "1x3x3"}, "inflate_style"),
        ({"depth": 34}, "depth"),
        ({"act_cfg": {"type": "SiLU"}}, "act_cfg"),
        ({"norm_cfg": {"type": "GN", "num_groups": 32}}, "norm_cfg"),
        ({"conv_cfg": {"type": "Conv2plus1d"}}, "conv_cfg"),
        ({"non_local_cfg": {"norm_cfg": {"type": "IN3d"}}}, "norm_cfg"),
        ({"non_local_cfg": {"type": "ContextBlock3d"}}, "non_local_cfg.type"),
        ({"out_indices": (0, 1, 2)}, "out_indices"),
        ({"stage_blocks": (3, 4, 6, 2)}, "stage_blocks"),
        ({"kind": "C2D", "conv1_kernel": (3, 7, 7)}, "conv1_kernel"),
        ({"kind": "C2D", "with_pool2": False}, "with_pool2"),
        ({"kind": "ResNet", "inflate": (1, 1, 1, 1)}, "inflate"),
        ({"head": {"type": "SlowFastHead"}}, "head.type"),
        ({"head": {"type": "I3DHead", "spatial_type": "max"}}, "spatial_type"),
        ({"head": {"type": "TSNHead", "consensus": {"type": "SegmentConsensus"}}}, "consensus"),
        ({"head": {"type": "I3DHead", "temporal_pool": True}}, "temporal_pool"),
    ],
)
def test_unsupported_mmaction2_settings_are_refused(settings: Settings, word: str):
    with pytest.raises(UserError, match=word):
        mmaction2(**settings)


def test_mmaction2_settings_that_change_nothing():
    said = mmaction2(
        "mmaction.ResNet3d",
        head={
            "type": "mmaction.TSNHead",
            "consensus": {"type": "AvgConsensus", "dim": 1},
            "dropout_ratio": 0.4,
        },
        stage_blocks=(3, 4, 6, 3),
        out_indices=(3,),
        lateral=False,
        speed_ratio=8,
        channel_ratio=8,
        act_cfg={"type": "ReLU", "inplace": True},
        norm_cfg={"type": "SyncBN", "requires_grad": True, "eps": 1e-5},
        conv_cfg={"type": "Conv3d"},
        non_local_cfg={"type": "mmaction.NonLocal3d", "conv_cfg": {"type": "Conv3d"}},
        with_cp=True,
    )
    assert said == mmaction2()
    assert mmaction2("C2D", conv1_kernel=[1, 7, 7], strides=(1, 2, 2, 2)) == mmaction2("C2D")


def test_pytorchvideo_settings_of_the_backbone():
    usual = {"arch": "i3d", "depth": 50}
    explicit = {"stem_pool_stride": [1, 2, 2], "dropout_rate": 0.5}
    assert from_pytorchvideo({**usual, **explicit}) == from_pytorchvideo(usual)
    thin = shapes(from_pytorchvideo({**usual, "stem_dim_out": 32}), "pytorchvideo")
    assert thin["blocks.0.conv.weight"] == (32, 3, 5, 7, 7)
    with pytest.raises(UserError, match="stage_temporal_stride"):
        from_pytorchvideo({**usual, "stage_temporal_stride": (1, 2, 2, 2)})
    with pytest.raises(UserError, match="invented"):
        from_pytorchvideo({**usual, "invented": 1})
    with pytest.raises(UserError, match="depth=18"):  # its create_resnet has no such depth either
        from_pytorchvideo({**usual, "depth": 18})


def randomize(model: torch.nn.Module) -> None:
    """Set statistics and scales as after training, so that none is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight", "bn1.weight", "bn2.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.1, generator=generator)
        elif tensor.dim() == 1:
            tensor.uniform_(0.2, 0.5, generator=generator)
        elif tensor.dim() > 1:
            tensor.normal_(0, prod(tensor.shape[1:]) ** -0.5, generator=generator)


def agree(theirs: torch.nn.Module, config: ResNetConfig, form: str, video: torch.Tensor) -> None:
    """Check that both networks have equal outputs with equal weights, in float64."""
    theirs.double().eval()
    randomize(theirs)
    model = build_model(config, 16).double().eval()
    model.load_state_dict(import_state(theirs.state_dict(), form))
    image = video if video.shape[2] > 1 else video[:, :, 0]
    with torch.no_grad():
        expected, answer = theirs(image), model(video)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert (answer - expected).abs().max() <= 1e-9 * expected.abs().max()


SLOW = [pytest.mark.slow]


@pytest.mark.parametrize(
    "depth", [50, pytest.param(101, marks=SLOW), pytest.param(152, marks=SLOW)]
)
def test_outputs_equal_those_of_torchvision(depth: int):
    builder = getattr(torchvision.models, f"resnet{depth}")
    video = torch.randn(2, 3, 1, 64, 64, dtype=torch.float64)
    agree(builder(num_classes=16), from_torchvision(depth), "torchvision", video)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("arch", "depth"),
    [
        ("c2d", 50),
        ("i3d", 50),
        ("slow", 50),
        pytest.param("slow", 101, marks=SLOW),
        pytest.param("i3d", 101, marks=SLOW),
    ],
)
def test_outputs_equal_those_of_pytorchvideo(arch: str, depth: int):
    from pytorchvideo.models.resnet import create_resnet

    a, b = (1, 1, 1), (3, 1, 1)
    kernels: Any = {"c2d": (a, a, a, a), "i3d": (b, [b, a], [b, a], [a, b]), "slow": (a, a, b, b)}
    pools: Any = {} if arch == "slow" else {"stage1_pool": torch.nn.MaxPool3d}
    theirs = create_resnet(
        model_depth=depth,
        model_num_class=16,
        stem_conv_kernel_size=(5 if arch == "i3d" else 1, 7, 7),
        stage_conv_a_kernel_size=kernels[arch],
        head_pool_kernel_size=(8 if arch == "slow" else 4, 2, 2),
        head_output_with_global_average=True,
        **pools,
    )
    form = "pytorchvideo_slow" if arch == "slow" else "pytorchvideo"
    video = torch.randn(1, 3, 8, 64, 64, dtype=torch.float64)
    agree(theirs, from_pytorchvideo({"arch": arch, "depth": depth}, 64), form, video)
