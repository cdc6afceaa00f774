"""mmaction2 (and the non-local blocks of mmcv): I3D, SlowOnly and C2D recognizers."""

from collections.abc import Mapping
from typing import Any

from nlnet.checks import one_of
from nlnet.config import NonLocalConfig, ResNetConfig
from nlnet.errors import UserError
from nlnet.model.resnet3d import DEPTHS, STAGES
from nlnet.weights.code_base import CodeBase, Publisher, Settings
from nlnet.weights.keymap import Blocks, Format
from nlnet.weights.settings import check_eps, check_settings, same, stage_kernels

MMACTION2 = Format(
    "mmaction2",
    {
        "backbone.conv1": "backbone.conv1.conv",
        "backbone.norm1": "backbone.conv1.bn",
        "backbone.res{s}.block{i}.conv_{k}": "backbone.layer{l}.{i}.conv{n}.conv",
        "backbone.res{s}.block{i}.norm_{k}": "backbone.layer{l}.{i}.conv{n}.bn",
        "backbone.res{s}.block{i}.shortcut": "backbone.layer{l}.{i}.downsample.conv",
        "backbone.res{s}.block{i}.shortcut_norm": "backbone.layer{l}.{i}.downsample.bn",
        "backbone.res{s}.nl{i}.theta": "backbone.layer{l}.{i}.non_local_block.theta.conv",
        "backbone.res{s}.nl{i}.phi": "backbone.layer{l}.{i}.non_local_block.phi.conv",
        "backbone.res{s}.nl{i}.g": "backbone.layer{l}.{i}.non_local_block.g.conv",
        "backbone.res{s}.nl{i}.out": "backbone.layer{l}.{i}.non_local_block.conv_out.conv",
        "backbone.res{s}.nl{i}.norm": "backbone.layer{l}.{i}.non_local_block.conv_out.bn",
        "backbone.res{s}.nl{i}.pairwise": (
            "backbone.layer{l}.{i}.non_local_block.concat_project.conv"
        ),
        "head.fc": "cls_head.fc_cls",
    },
    state="state_dict",
    blocks=Blocks(("none",), bias="before_norm", embedded=False),
    pool1_padding=None,
)
MMACTION2_POOLED = Format(  # phi and g are sequences: a convolution and the pooling of the keys
    "mmaction2",
    {
        **MMACTION2.modules,
        "backbone.res{s}.nl{i}.phi": "backbone.layer{l}.{i}.non_local_block.phi.0.conv",
        "backbone.res{s}.nl{i}.g": "backbone.layer{l}.{i}.non_local_block.g.0.conv",
    },
    state="state_dict",
    blocks=Blocks(("embedded",), bias="before_norm", embedded=False),
    pool1_padding=None,
)

# mmaction2's values of settings that change the network's output, for settings that are absent.
RESNET3D: Settings = {
    "conv1_kernel": (3, 7, 7),
    "conv1_stride_s": 2,
    "conv1_stride_t": 1,
    "pool1_stride_s": 2,
    "pool1_stride_t": 1,
    "with_pool1": True,
    "with_pool2": True,
    "style": "pytorch",
    "inflate": (1, 1, 1, 1),
    "inflate_style": "3x1x1",
    "non_local": (0, 0, 0, 0),
    "non_local_cfg": {},
    "zero_init_residual": True,
    "base_channels": 64,
}
C2D: Settings = {
    **RESNET3D,
    "conv1_kernel": (1, 7, 7),
    "inflate": (0, 0, 0, 0),
    "zero_init_residual": False,
}
BACKBONES: Mapping[str, Settings] = {
    "ResNet3d": RESNET3D,
    "ResNet3dSlowOnly": {
        **RESNET3D,
        "conv1_kernel": (1, 7, 7),
        "inflate": (0, 0, 1, 1),
        "with_pool2": False,
    },
    "C2D": C2D,
    "ResNet": {**C2D, "with_pool2": False},
}
FIXED: Settings = {
    "in_channels": 3,
    "num_stages": 4,
    "spatial_strides": (1, 2, 2, 2),
    "temporal_strides": (1, 1, 1, 1),
    "strides": (1, 2, 2, 2),
    "dilations": (1, 1, 1, 1),
    "lateral": False,
}
READ = {  # in addition to the defaults; the last three rows are of training or of two pathways
    *("type", "depth", "stage_blocks", "out_indices", "norm_cfg", "conv_cfg", "act_cfg"),
    *("pretrained", "pretrained2d", "torchvision_pretrain", "init_cfg", "frozen_stages"),
    *("partial_bn", "norm_eval", "with_cp"),
    *("speed_ratio", "channel_ratio", "lateral_infl", "lateral_norm", "lateral_activate"),
}
HEADS = ("I3DHead", "TSNHead")  # average pool over all positions, dropout, one linear layer
HEAD_READ = {
    *("type", "spatial_type", "consensus", "num_classes", "in_channels", "dropout_ratio"),
    *("init_std", "average_clips", "loss_cls", "multi_class", "label_smooth_eps", "topk"),
}
BLOCK_READ = {
    *("type", "sub_sample", "use_scale", "mode", "norm_cfg", "conv_cfg", "reduction"),
    "zeros_init",
}
BATCH_NORMS = ("BN", "BN1d", "BN2d", "BN3d", "SyncBN")
CONVS = ("Conv", "Conv2d", "Conv3d")


def from_mmaction2(backbone: Settings, head: Settings) -> ResNetConfig:
    """Read the backbone and the head of a recognizer; absent settings have mmaction2's defaults."""
    kind = _without_scope(backbone["type"])
    defaults = one_of("backbone.type", kind, BACKBONES)
    depth = one_of("backbone.depth", backbone.get("depth", 50), {50: 50, 101: 101, 152: 152})
    # The classes of 2-D networks do not have most of the settings; the others must not be changed.
    images = {} if "3d" in kind else {k: v for k, v in defaults.items() if k != "style"}
    check_settings("backbone", backbone, read={*defaults, *READ}, fixed={**FIXED, **images})
    _check_layers("backbone", backbone)
    _check_head(head)
    if not same(backbone.get("stage_blocks") or DEPTHS[depth], DEPTHS[depth]):
        raise UserError(f"backbone.stage_blocks={backbone['stage_blocks']}: not of depth {depth}")
    if list(backbone.get("out_indices", (3,)))[-1:] != [3]:
        raise UserError(f"backbone.out_indices={backbone['out_indices']}: not the last stage")
    settings = {**defaults, **backbone}
    pool1_kernel, pool1_stride, pool1_padding = [1, 1, 1], [1, 1, 1], [0, 0, 0]
    if settings["with_pool1"]:
        time, space = settings["pool1_stride_t"], settings["pool1_stride_s"]
        pool1_kernel, pool1_stride = [1, 3, 3], [time, space, space]
        pool1_padding = [0, 0, 0] if kind == "C2D" else [0, 1, 1]
    inflated = {
        stage: [3 if flag else 1 for flag in flags]
        for stage, flags in _per_block(settings["inflate"], depth).items()
    }
    stride = settings["conv1_stride_s"]
    inflate_convs, stride_convs = {"3x1x1": "a", "3x3x3": "b"}, {"pytorch": "b", "caffe": "a"}
    return ResNetConfig(
        depth=depth,
        width=settings["base_channels"],
        conv1_kernel=list(settings["conv1_kernel"]),
        conv1_stride=[settings["conv1_stride_t"], stride, stride],
        pool1_kernel=pool1_kernel,
        pool1_stride=pool1_stride,
        pool1_padding=pool1_padding,
        pool2_kernel=[2, 1, 1] if settings["with_pool2"] else None,
        temporal_kernels=stage_kernels(inflated),
        inflate_conv=one_of("backbone.inflate_style", settings["inflate_style"], inflate_convs),
        stride_conv=one_of("backbone.style", settings["style"], stride_convs),
        zero_init_residual=settings["zero_init_residual"],
        non_local=_blocks(settings["non_local"], settings["non_local_cfg"], depth),
    )


def _blocks(flags: Any, settings: Settings, depth: int) -> NonLocalConfig:
    """Read mmcv's non-local blocks, which pool after the embeddings."""
    check_settings("non_local_cfg", settings, read=BLOCK_READ, fixed={})
    kind = _without_scope(settings.get("type", "NonLocal3d"))
    one_of("non_local_cfg.type", kind, {"NonLocal3d": None})
    _check_layers("non_local_cfg", settings)
    norm = settings.get("norm_cfg") is not None
    per_block = _per_block(flags, depth)
    res2, res3, res4, res5 = (
        [i for i, flag in enumerate(per_block[stage]) if flag] for stage in STAGES
    )
    return NonLocalConfig(
        res2=res2,
        res3=res3,
        res4=res4,
        res5=res5,
        pairwise=settings.get("mode", "embedded_gaussian"),
        scale=settings.get("use_scale", True),
        subsample="embedded" if settings.get("sub_sample", False) else "none",
        ratio=1 / settings.get("reduction", 2),
        out_bias=not norm,  # the convolution before a norm has no bias
        norm="batch" if norm else "none",
        zero_init=settings.get("zeros_init", True),
    )


def _per_block(flags: Any, depth: int) -> dict[str, list[int]]:
    """Expand flags, which are one number, one per stage or one per block, to every block."""
    stages = [flags] * len(STAGES) if isinstance(flags, int) else list(flags)
    return {
        stage: [value] * count if isinstance(value, int) else list(value)
        for stage, value, count in zip(STAGES, stages, DEPTHS[depth], strict=True)
    }


def _without_scope(name: str) -> str:
    """Remove the name of a registry from a type: mmaction.ResNet3d -> ResNet3d."""
    return name.rpartition(".")[2]


def _check_layers(section: str, settings: Settings) -> None:
    """Raise UserError for other layers than plain convolutions, batch norms and ReLU."""
    for key, known in (("conv_cfg", CONVS), ("norm_cfg", BATCH_NORMS), ("act_cfg", ("ReLU",))):
        layer = settings.get(key) or {}
        if _without_scope(layer.get("type", known[0])) not in known:
            raise UserError(f"{section}.{key}={layer}: unsupported; choose {', '.join(known)}")
    check_eps(f"{section}.norm_cfg.eps", settings.get("norm_cfg") or {})


def _check_head(head: Settings) -> None:
    """Raise UserError for a head that is not one average pool and one linear layer."""
    check_settings("head", head, read=HEAD_READ, fixed={"spatial_type": "avg"})
    one_of("head.type", _without_scope(head.get("type", HEADS[0])), dict.fromkeys(HEADS))
    consensus = (head.get("consensus") or {}).get("type", "AvgConsensus")
    one_of("head.consensus.type", _without_scope(consensus), {"AvgConsensus": None})


def _path(config: str, ending: str) -> str:
    """Return the path of a weight file, which contains the name of its config twice."""
    folder = f"{config}_kinetics400-rgb"
    return f"{folder}/{folder.rpartition('/')[2]}_{ending}.pth"


I3D = "i3d/i3d_imagenet-pretrained-r50"
SLOW_NL5 = "slowonly/slowonly_r50-in1k-pre-nl-embedded-gaussian_8xb16-4x16x1-steplr-150e"
PUBLISHER = Publisher(
    "https://download.openmmlab.com/mmaction/v1.0/recognition/",
    "Apache 2.0",
    {
        "i3d_32x2": _path(f"{I3D}_8xb8-32x2x1-100e", "20220812-e213c223"),
        "i3d_dense_32x2": _path(f"{I3D}_8xb8-dense-32x2x1-100e", "20220812-9f46003f"),
        "i3d_nl5_dot_product_32x2": _path(
            f"{I3D}-nl-dot-product_8xb8-32x2x1-100e", "20220812-8e1f2148"
        ),
        "i3d_nl5_embedded_gaussian_32x2": _path(
            f"{I3D}-nl-embedded-gaussian_8xb8-32x2x1-100e", "20220812-afd8f562"
        ),
        "i3d_nl5_gaussian_32x2": _path(f"{I3D}-nl-gaussian_8xb8-32x2x1-100e", "20220812-0c5cbf5a"),
        "i3d_heavy_32x2": _path(f"{I3D}-heavy_8xb8-32x2x1-100e", "20220812-ed501b31"),
        "c2d_nopool_8x8": _path(
            "c2d/c2d_r50-in1k-pre-nopool_8xb32-8x8x1-100e", "20221027-e0227b22"
        ),
        "c2d_nopool_r101_8x8": _path(
            "c2d/c2d_r101-in1k-pre-nopool_8xb32-8x8x1-100e", "20221027-557bd8bc"
        ),
        "c2d_8x8": _path("c2d/c2d_r50-in1k-pre_8xb32-8x8x1-100e", "20221027-3ca304fa"),
        "c2d_16x4": _path("c2d/c2d_r50-in1k-pre_8xb32-16x4x1-100e", "20221027-5f382a43"),
        "slow_8x8": _path("slowonly/slowonly_r50_8xb16-8x8x1-256e", "20220901-2132fc87"),
        "slow_r101_8x8": _path("slowonly/slowonly_r101_8xb16-8x8x1-196e", "20220901-e6281431"),
        "slow_nl5_4x16": _path(SLOW_NL5, "20220901-cf739c75"),
    },
)
CODE_BASE = CodeBase(
    formats={"mmaction2": MMACTION2, "mmaction2_pooled": MMACTION2_POOLED},
    read_settings=lambda facts: from_mmaction2(facts["backbone"], facts["head"]),
    undetermined=("dropout", "head_window", "head_average", "activation", "normalization"),
    publisher=PUBLISHER,
)
