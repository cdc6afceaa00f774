"""What published networks' own settings mean here: one pure function per code base.

Each takes the settings as its source spells them and returns the `model` part of our
configuration as a plain tree, the keys whose values it knows, or raises UserError for a setting
that our network does not have. Temporal sizes are those of section 4 of Wang et al. 2018 and of
the released models; the test heads are each source's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nlnet.errors import UserError, choose
from nlnet.model.resnet3d import DEPTHS, STAGES

Settings = Mapping[str, Any]
Tree = dict[str, Any]  # keys of ModelConfig or of a part of it

Kernels = Mapping[str, tuple[int, ...]]  # temporal sizes; a pattern repeats over its stage
C2D: Kernels = {"conv1": (1,), "res2": (1,), "res3": (1,), "res4": (1,), "res5": (1,)}
I3D: Kernels = {"conv1": (5,), "res2": (3,), "res3": (3, 1), "res4": (3, 1), "res5": (1, 3)}
SLOW: Kernels = {"conv1": (1,), "res2": (1,), "res3": (1,), "res4": (3,), "res5": (3,)}
NORM_EPS = 1e-5  # of every batch norm here
LONG_CLIP_GROUP = 4  # frames that attend to each other in res3 of the authors' affine networks


def from_caffe2(model: Settings, non_local: Settings) -> Tree:
    """The authors' network from the MODEL and NONLOCAL sections of their configuration.

    Its temporal sizes do not depend on the clip: the head pools all frames.
    """
    check_eps("MODEL.BN_EPSILON", model)
    check_eps("NONLOCAL.BN_EPSILON", non_local)
    arc = model["VIDEO_ARC_CHOICE"]
    depth, kernels = choose(
        "MODEL.VIDEO_ARC_CHOICE", arc, {1: (50, C2D), 2: (50, I3D), 3: (101, C2D), 4: (101, I3D)}
    )
    if model["DEPTH"] != depth:
        raise UserError(f"MODEL.DEPTH={model['DEPTH']} disagrees with VIDEO_ARC_CHOICE={arc}")
    time = choose(
        "MODEL.MODEL_NAME", model["MODEL_NAME"], {"resnet_video": 1, "resnet_video_org": 2}
    )
    return dict(
        depth=depth,
        conv1_kernel=[*kernels["conv1"], 7, 7],
        conv1_stride=[time, 2, 2],
        pool1_kernel=[time, 3, 3],
        pool1_stride=[time, 2, 2],
        pool1_padding=[0, 0, 0],
        temporal_kernels={stage: list(kernels[stage]) for stage in STAGES},
        norm="affine" if model["USE_AFFINE"] else "batch",
        zero_init_residual=model["BN_INIT_GAMMA"] == 0,
        head_window=[7, 7],
        normalization="kinetics",
        non_local=caffe2_blocks(depth, model["USE_AFFINE"], non_local),
    )


def check_eps(key: str, settings: Settings) -> None:
    """Refuse another epsilon than ours; what is not said has the usual one."""
    eps = settings.get(key.rpartition(".")[2], NORM_EPS)
    if abs(eps - NORM_EPS) > 1e-4 * NORM_EPS:
        raise UserError(f"{key}={eps}: the norms here have {NORM_EPS}")


def caffe2_blocks(depth: int, affine: bool, settings: Settings) -> Tree:
    """The authors' non-local blocks; `affine` networks group the frames of res3."""
    if settings["USE_BN"] and settings["USE_AFFINE"]:
        raise UserError("NONLOCAL.USE_BN and NONLOCAL.USE_AFFINE at once share one scale and bias")
    mod = settings["LAYER_MOD"]
    res3, res4 = (2, 4 * mod - 1) if depth == 101 else (mod, mod)
    counts = dict(zip(STAGES, DEPTHS[depth], strict=True))
    bias = not settings["NO_BIAS"]
    norm = "affine" if settings["USE_AFFINE"] else "none"
    zero_norm = settings["USE_BN"] and settings["BN_INIT_GAMMA"] == 0
    return dict(
        res3=list(range(res3 - 1, counts["res3"], res3)) if settings["CONV3_NONLOCAL"] else [],
        res4=list(range(res4 - 1, counts["res4"], res4)) if settings["CONV4_NONLOCAL"] else [],
        pairwise="embedded_gaussian" if settings["USE_SOFTMAX"] else "dot_product",
        scale=bool(settings["USE_SCALE"]),
        subsample="input" if settings["USE_MAXPOOL"] else "none",
        group_frames={"res3": LONG_CLIP_GROUP if affine else None},
        embedding_bias=bias,
        out_bias=bias,
        norm="batch" if settings["USE_BN"] else norm,
        zero_init=bool(zero_norm or settings["USE_ZERO_INIT_CONV"]),
    )


def from_slowfast(settings: Settings, frames: int, crop_size: int = 224) -> Tree:
    """A single-pathway network of the SlowFast repository.

    `frames` is the length of its clips, which its groups divide, and `crop_size` the crop it was
    trained with, in pixels, which fixes the window of its head.
    """
    kernels, pools = choose(
        "MODEL.ARCH",
        settings["arch"],
        {
            "2d": (C2D, False),
            "c2d": (C2D, True),
            "slow_c2d": (C2D, False),
            "i3d": (I3D, True),
            "slow_i3d": (I3D, False),
            "slow": (SLOW, False),
        },
    )
    depth = choose("RESNET.DEPTH", settings["depth"], {18: 26, 50: 50, 101: 101})
    counts = dict(zip(STAGES, DEPTHS[depth], strict=True))
    inflated = per_stage(settings["num_block_temporal_kernel"])
    table = {
        stage: [
            kernels[stage][i % len(kernels[stage])] if i < inflated[stage] else 1
            for i in range(counts[stage])
        ]
        for stage in STAGES
    }
    return dict(
        depth=depth,
        conv1_kernel=[*kernels["conv1"], 7, 7],
        pool2_kernel=[2, 1, 1] if pools else None,
        temporal_kernels=table,
        stride_conv="a" if settings["stride_in_1x1"] else "b",
        head_window=[crop_size // 32, crop_size // 32],
        normalization="kinetics",
        non_local=slowfast_blocks(settings, frames, pools),
    )


def slowfast_blocks(settings: Settings, frames: int, pools: bool) -> Tree:
    """SlowFast's non-local blocks; `pools` halves the frames behind res2."""
    places = per_stage(settings["nonlocal_location"])
    groups = per_stage(settings["nonlocal_groups"])
    kernels = {
        stage: list(kernel or (1, 1, 1))
        for stage, kernel in per_stage(settings["nonlocal_pool"]).items()
        if places[stage]
    }
    kernel = next(iter(kernels.values()), [1, 2, 2])
    pooled = not kernels or any(size != [1, 1, 1] for size in kernels.values())
    length = {stage: frames // 2 if pools and stage != "res2" else frames for stage in STAGES}
    return dict(
        **places,
        pairwise=choose(
            "NONLOCAL.INSTANTIATION",
            settings["nonlocal_instantiation"],
            {"softmax": "embedded_gaussian", "dot_product": "dot_product"},
        ),
        group_frames={
            stage: length[stage] // groups[stage] if groups[stage] > 1 else None for stage in STAGES
        },
        subsample="input" if pooled else "none",
        subsample_kernel=kernel,
        stage_subsample_kernel={stage: size for stage, size in kernels.items() if size != kernel},
        init="kaiming",
    )


def per_stage(values: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """SlowFast's [[res2], [res3], [res4], [res5]], one entry per pathway, by stage."""
    return {stage: pathways[0] for stage, pathways in zip(STAGES, values, strict=True)}


# mmaction2's defaults of what an answer depends on; other settings concern training alone.
MMACTION2_3D: Settings = {
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
MMACTION2_2D: Settings = {
    **MMACTION2_3D,
    "conv1_kernel": (1, 7, 7),
    "inflate": (0, 0, 0, 0),
    "zero_init_residual": False,
}
MMACTION2_BACKBONES: Mapping[str, Settings] = {
    "ResNet3d": MMACTION2_3D,
    "ResNet3dSlowOnly": {
        **MMACTION2_3D,
        "conv1_kernel": (1, 7, 7),
        "inflate": (0, 0, 1, 1),
        "with_pool2": False,
    },
    "C2D": MMACTION2_2D,
    "ResNet": {**MMACTION2_2D, "with_pool2": False},
}
MMACTION2_FIXED: Settings = {  # what must be so, where it is said at all
    "in_channels": 3,
    "num_stages": 4,
    "stage_blocks": None,
    "spatial_strides": (1, 2, 2, 2),
    "temporal_strides": (1, 1, 1, 1),
    "strides": (1, 2, 2, 2),
    "dilations": (1, 1, 1, 1),
    "lateral": False,
}
MMACTION2_TRAINING = {
    "type",
    "depth",
    "pretrained",
    "pretrained2d",
    "torchvision_pretrain",
    "init_cfg",
    "frozen_stages",
    "partial_bn",
    "norm_eval",
    "norm_cfg",
    "conv_cfg",
    "act_cfg",
    "with_cp",
    "out_indices",
}


def from_mmaction2(backbone: Settings, head: Settings) -> Tree:
    """mmaction2's recogniser from its backbone and head; what they leave out has its default."""
    kind = backbone["type"]
    defaults = choose("backbone.type", kind, MMACTION2_BACKBONES)
    unknown = backbone.keys() - defaults.keys() - MMACTION2_FIXED.keys() - MMACTION2_TRAINING
    other = [
        key
        for key, value in MMACTION2_FIXED.items()
        if as_lists(backbone.get(key, value)) != as_lists(value)
    ]
    if unknown or other:
        raise UserError(f"backbone settings without an equal here: {sorted([*unknown, *other])}")
    if head.get("spatial_type", "avg") != "avg":
        raise UserError(f"head.spatial_type={head['spatial_type']}: only avg is known")
    settings = {**defaults, **backbone}
    check_eps("backbone.norm_cfg.eps", settings.get("norm_cfg") or {})
    depth = choose("backbone.depth", settings.get("depth", 50), {50: 50, 101: 101, 152: 152})
    time, space = settings["pool1_stride_t"], settings["pool1_stride_s"]
    window = {
        "pool1_kernel": [1, 3, 3],
        "pool1_stride": [time, space, space],
        "pool1_padding": [0, 0, 0] if kind == "C2D" else [0, 1, 1],
    }
    if not settings["with_pool1"]:
        window = {
            "pool1_kernel": [1, 1, 1],
            "pool1_stride": [1, 1, 1],
            "pool1_padding": [0, 0, 0],
        }
    inflated = by_block(settings["inflate"], depth)
    stride = settings["conv1_stride_s"]
    return dict(
        depth=depth,
        width=settings["base_channels"],
        conv1_kernel=list(settings["conv1_kernel"]),
        conv1_stride=[settings["conv1_stride_t"], stride, stride],
        **window,
        pool2_kernel=[2, 1, 1] if settings["with_pool2"] else None,
        temporal_kernels={
            stage: [3 if yes else 1 for yes in flags] for stage, flags in inflated.items()
        },
        inflate_conv=choose(
            "backbone.inflate_style", settings["inflate_style"], {"3x1x1": "a", "3x3x3": "b"}
        ),
        stride_conv=choose("backbone.style", settings["style"], {"pytorch": "b", "caffe": "a"}),
        zero_init_residual=settings["zero_init_residual"],
        non_local=mmaction2_blocks(settings["non_local"], settings["non_local_cfg"], depth),
    )


def mmaction2_blocks(flags: Any, settings: Settings, depth: int) -> Tree:
    """mmcv's non-local blocks, which pool behind the embeddings and have no bias below a norm."""
    known = {"sub_sample", "use_scale", "mode", "norm_cfg", "reduction", "zeros_init", "conv_cfg"}
    if settings.keys() - known:
        raise UserError(f"non_local_cfg has no equal here: {sorted(settings.keys() - known)}")
    norm = settings.get("norm_cfg") is not None
    check_eps("non_local_cfg.norm_cfg.eps", settings.get("norm_cfg") or {})
    places = {
        stage: [i for i, flag in enumerate(stage_flags) if flag]
        for stage, stage_flags in by_block(flags, depth).items()
    }
    return dict(
        **places,
        pairwise=settings.get("mode", "embedded_gaussian"),
        scale=settings.get("use_scale", True),
        subsample="embedded" if settings.get("sub_sample", False) else "none",
        ratio=1 / settings.get("reduction", 2),
        out_bias=not norm,
        norm="batch" if norm else "none",
        zero_init=settings.get("zeros_init", True),
    )


def by_block(flags: Any, depth: int) -> dict[str, list[int]]:
    """mmaction2's flags, one number or one per stage or one per block, for every block."""
    stages = [flags] * len(STAGES) if isinstance(flags, int) else list(flags)
    return {
        stage: [value] * count if isinstance(value, int) else list(value)
        for stage, value, count in zip(STAGES, stages, DEPTHS[depth], strict=True)
    }


def as_lists(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def from_pytorchvideo(settings: Settings, crop_size: int = 224) -> Tree:
    """A hub network of pytorchvideo by its architecture and depth.

    `crop_size` is the crop it was trained with, in pixels, which fixes the window of its head.
    """
    kernels, pools = choose(
        "arch", settings["arch"], {"c2d": (C2D, True), "i3d": (I3D, True), "slow": (SLOW, False)}
    )
    return dict(
        depth=choose("depth", settings["depth"], {50: 50, 101: 101, 152: 152}),
        conv1_kernel=[*kernels["conv1"], 7, 7],
        pool2_kernel=[2, 1, 1] if pools else None,
        temporal_kernels={stage: list(kernels[stage]) for stage in STAGES},
        head_window=[crop_size // 32, crop_size // 32],
        head_average="logits",
        normalization="kinetics",
    )


def from_torchvision(depth: int) -> Tree:
    """torchvision's ResNet for images: a C2D network that pools no time, for clips of one frame."""
    return dict(
        depth=choose("depth", depth, {50: 50, 101: 101, 152: 152}),
        pool2_kernel=None,
        zero_init_residual=False,
    )
