"""What published networks' own settings mean here: one pure function per code base.

Each takes the settings as its source spells them and returns the `model` part of our
configuration as a plain tree, the keys whose values it knows, or raises UserError for a setting
that our network does not have. Temporal sizes are those of section 4 of Wang et al. 2018 and of
the released models; the test heads are each source's own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nlnet.checks import one_of
from nlnet.errors import UserError
from nlnet.model.resnet3d import DEPTHS, STAGES

Settings = Mapping[str, Any]
Tree = dict[str, Any]  # keys of ModelConfig or of a part of it

Kernels = Mapping[str, tuple[int, ...]]  # temporal sizes; a pattern repeats over its stage
C2D: Kernels = {"conv1": (1,), "res2": (1,), "res3": (1,), "res4": (1,), "res5": (1,)}
I3D: Kernels = {"conv1": (5,), "res2": (3,), "res3": (3, 1), "res4": (3, 1), "res5": (1, 3)}
SLOW: Kernels = {"conv1": (1,), "res2": (1,), "res3": (1,), "res4": (3,), "res5": (3,)}
NORM_EPS = 1e-5  # of every batch norm here
LONG_CLIP_GROUP = 4  # frames that attend to each other in res3 of the authors' affine networks


def check_settings(
    section: str, settings: Settings, *, read: Iterable[str], fixed: Settings
) -> None:
    """Refuse keys that are neither `read` nor `fixed`, and another value than that of `fixed`."""
    unknown = settings.keys() - set(read) - fixed.keys()
    other = [key for key, value in fixed.items() if not same(settings.get(key, value), value)]
    if unknown or other:
        raise UserError(f"{section} settings without an equal here: {sorted([*unknown, *other])}")


def same(value: Any, other: Any) -> bool:
    """Whether two settings agree; a tuple is a list."""
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    return bool(value == other)


CAFFE2_FIXED: Settings = {"MEAN": 114.75, "STD": 57.375, "USE_BGR": False}
CAFFE2_MODEL = {  # what is read below; the second row is of training and memory
    *("VIDEO_ARC_CHOICE", "DEPTH", "MODEL_NAME", "USE_AFFINE", "BN_INIT_GAMMA", "BN_EPSILON"),
    *("NUM_CLASSES", "BN_MOMENTUM", "FC_INIT_STD", "MEMONGER", "SAMPLE_THREADS"),
    *("ALLOW_INPLACE_SUM", "ALLOW_INPLACE_RELU", "ALLOW_INPLACE_RESHAPE"),
}
CAFFE2_BLOCKS = {
    *("CONV3_NONLOCAL", "CONV4_NONLOCAL", "LAYER_MOD", "NO_BIAS", "USE_MAXPOOL", "USE_SOFTMAX"),
    *("USE_SCALE", "USE_BN", "USE_AFFINE", "USE_ZERO_INIT_CONV", "BN_INIT_GAMMA", "BN_EPSILON"),
    *("BN_MOMENTUM", "CONV_INIT_STD"),
}


def from_caffe2(model: Settings, non_local: Settings) -> Tree:
    """The authors' network from the MODEL and NONLOCAL sections of their configuration.

    Its temporal sizes do not depend on the clip: the head pools all frames.
    """
    check_settings("MODEL", model, read=CAFFE2_MODEL, fixed=CAFFE2_FIXED)
    check_settings("NONLOCAL", non_local, read=CAFFE2_BLOCKS, fixed={})
    check_eps("MODEL.BN_EPSILON", model)
    check_eps("NONLOCAL.BN_EPSILON", non_local)
    arc = model["VIDEO_ARC_CHOICE"]
    depth, kernels = one_of(
        "MODEL.VIDEO_ARC_CHOICE", arc, {1: (50, C2D), 2: (50, I3D), 3: (101, C2D), 4: (101, I3D)}
    )
    if model["DEPTH"] != depth:
        raise UserError(f"MODEL.DEPTH={model['DEPTH']} disagrees with VIDEO_ARC_CHOICE={arc}")
    time = one_of(
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


# SlowFast's defaults of what an answer depends on, for what is not said.
SLOWFAST_DEFAULTS: Settings = {
    "stride_in_1x1": False,
    "width_per_group": 64,
    "num_block_temporal_kernel": [[3], [4], [6], [3]],
    "head_act": "softmax",
    "zero_init_final_bn": True,  # its code has False, its Kinetics configurations True
    "nonlocal_location": [[[]]] * 4,
    "nonlocal_groups": [[1]] * 4,
    "nonlocal_instantiation": "dot_product",
    "nonlocal_pool": [[[1, 2, 2], [1, 2, 2]]] * 4,
}
SLOWFAST_FIXED: Settings = {
    "trans_func": "bottleneck_transform",
    "num_groups": 1,
    "spatial_strides": [[1], [2], [2], [2]],
    "spatial_dilations": [[1], [1], [1], [1]],
    "norm_type": "batchnorm",
    "input_channel_num": [3],
    "reverse_input_channel": False,
}
SLOWFAST_TRAINING = {
    *("num_classes", "dropout_rate", "dropconnect_rate", "fc_init_std", "loss_func"),
    *("zero_init_final_conv", "inplace_relu", "act_checkpoint", "detach_final_fc", "model_name"),
}


def from_slowfast(settings: Settings, frames: int, crop_size: int = 224) -> Tree:
    """A single-pathway network of the SlowFast repository.

    `frames` is the length of its clips, which its groups divide, and `crop_size` the crop it was
    trained with, in pixels, which fixes the window of its head.
    """
    read = {"arch", "depth", "epsilon", *SLOWFAST_DEFAULTS, *SLOWFAST_TRAINING}
    check_settings("SlowFast", settings, read=read, fixed=SLOWFAST_FIXED)
    check_eps("BN.epsilon", settings)
    settings = {**SLOWFAST_DEFAULTS, **settings}
    kernels, pools = one_of(
        "MODEL.ARCH",
        settings["arch"],
        {
            "2d": (C2D, False),
            "c2d": (C2D, True),
            "slow_c2d": (C2D, False),
            "c2d_nopool": (C2D, False),
            "i3d": (I3D, True),
            "i3d_nopool": (I3D, False),
            "slow_i3d": (I3D, False),
            "slow": (SLOW, False),
        },
    )
    depth = one_of("RESNET.DEPTH", settings["depth"], {18: 26, 50: 50, 101: 101})
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
        width=settings["width_per_group"],
        conv1_kernel=[*kernels["conv1"], 7, 7],
        pool2_kernel=[2, 1, 1] if pools else None,
        temporal_kernels=table,
        stride_conv="a" if settings["stride_in_1x1"] else "b",
        zero_init_residual=settings["zero_init_final_bn"],
        head_window=[crop_size // 32, crop_size // 32],
        activation=one_of(
            "MODEL.HEAD_ACT",
            settings["head_act"],
            {"softmax": "softmax", "sigmoid": "sigmoid"},
        ),
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
        pairwise=one_of(
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
    "spatial_strides": (1, 2, 2, 2),
    "temporal_strides": (1, 1, 1, 1),
    "strides": (1, 2, 2, 2),
    "dilations": (1, 1, 1, 1),
    "lateral": False,
}
MMACTION2_READ = {  # beside the defaults above; the rows below are of training, or of two pathways
    *("type", "depth", "stage_blocks", "out_indices", "norm_cfg", "conv_cfg", "act_cfg"),
    *("pretrained", "pretrained2d", "torchvision_pretrain", "init_cfg", "frozen_stages"),
    *("partial_bn", "norm_eval", "with_cp"),
    *("speed_ratio", "channel_ratio", "lateral_infl", "lateral_norm", "lateral_activate"),
}
MMACTION2_HEADS = ("I3DHead", "TSNHead")  # all positions pooled, dropout, one linear map
MMACTION2_HEAD_READ = {
    *("type", "spatial_type", "consensus", "num_classes", "in_channels", "dropout_ratio"),
    *("init_std", "average_clips", "loss_cls", "multi_class", "label_smooth_eps", "topk"),
}
BATCH_NORMS = ("BN", "BN1d", "BN2d", "BN3d", "SyncBN")
CONVS = ("Conv", "Conv2d", "Conv3d")


def from_mmaction2(backbone: Settings, head: Settings) -> Tree:
    """mmaction2's recogniser from its backbone and head; what they leave out has its default."""
    kind = unscoped(backbone["type"])
    defaults = one_of("backbone.type", kind, MMACTION2_BACKBONES)
    depth = one_of("backbone.depth", backbone.get("depth", 50), {50: 50, 101: 101, 152: 152})
    fixed = {**MMACTION2_FIXED, **(foreign_to_images(defaults) if "3d" not in kind else {})}
    check_settings("backbone", backbone, read={*defaults, *MMACTION2_READ}, fixed=fixed)
    check_layers("backbone", backbone)
    check_mmaction2_head(head)
    if not same(backbone.get("stage_blocks") or DEPTHS[depth], DEPTHS[depth]):
        raise UserError(f"backbone.stage_blocks={backbone['stage_blocks']}: not of depth {depth}")
    if list(backbone.get("out_indices", (3,)))[-1:] != [3]:
        raise UserError(f"backbone.out_indices={backbone['out_indices']}: not the last stage")
    settings = {**defaults, **backbone}
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
        inflate_conv=one_of(
            "backbone.inflate_style", settings["inflate_style"], {"3x1x1": "a", "3x3x3": "b"}
        ),
        stride_conv=one_of("backbone.style", settings["style"], {"pytorch": "b", "caffe": "a"}),
        zero_init_residual=settings["zero_init_residual"],
        non_local=mmaction2_blocks(settings["non_local"], settings["non_local_cfg"], depth),
    )


def unscoped(name: str) -> str:
    """A registered type without the name of its registry, mmaction.ResNet3d -> ResNet3d."""
    return name.rpartition(".")[2]


def foreign_to_images(defaults: Settings) -> Settings:
    """What the image networks have as it is; their classes know no such settings."""
    return {key: value for key, value in defaults.items() if key != "style"}


def check_layers(section: str, settings: Settings) -> None:
    """Refuse other layers than plain convolutions, batch norms and ReLU."""
    for key, known in (("conv_cfg", CONVS), ("norm_cfg", BATCH_NORMS), ("act_cfg", ("ReLU",))):
        layer = settings.get(key) or {}
        if unscoped(layer.get("type", known[0])) not in known:
            raise UserError(f"{section}.{key}={layer}: only {', '.join(known)} have an equal here")
    check_eps(f"{section}.norm_cfg.eps", settings.get("norm_cfg") or {})


def check_mmaction2_head(head: Settings) -> None:
    """Refuse a head that is not one average pool and one linear map."""
    check_settings("head", head, read=MMACTION2_HEAD_READ, fixed={"spatial_type": "avg"})
    kind = unscoped(head.get("type", MMACTION2_HEADS[0]))
    one_of("head.type", kind, dict.fromkeys(MMACTION2_HEADS))
    consensus = (head.get("consensus") or {}).get("type", "AvgConsensus")
    one_of("head.consensus.type", unscoped(consensus), {"AvgConsensus": None})


def mmaction2_blocks(flags: Any, settings: Settings, depth: int) -> Tree:
    """mmcv's non-local blocks, which pool behind the embeddings and have no bias below a norm."""
    read = {"type", "sub_sample", "use_scale", "mode", "norm_cfg", "conv_cfg", "reduction"}
    check_settings("non_local_cfg", settings, read={*read, "zeros_init"}, fixed={})
    one_of("non_local_cfg.type", unscoped(settings.get("type", "NonLocal3d")), {"NonLocal3d": None})
    check_layers("non_local_cfg", settings)
    norm = settings.get("norm_cfg") is not None
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


PYTORCHVIDEO_FIXED: Settings = {
    "input_channel": 3,
    "stem_conv_stride": (1, 2, 2),
    "stem_pool_kernel_size": (1, 3, 3),
    "stem_pool_stride": (1, 2, 2),
    "stage1_pool_kernel_size": (2, 1, 1),
    "stage_conv_b_num_groups": (1, 1, 1, 1),
    "stage_spatial_h_stride": (1, 2, 2, 2),
    "stage_spatial_w_stride": (1, 2, 2, 2),
    "stage_temporal_stride": (1, 1, 1, 1),
    "head_activation": None,
    "head_output_with_global_average": True,
}
PYTORCHVIDEO_READ = {"arch", "depth", "stem_dim_out", "model_num_class", "dropout_rate"}


def from_pytorchvideo(settings: Settings, crop_size: int = 224) -> Tree:
    """A hub network of pytorchvideo by its architecture and depth.

    `crop_size` is the crop it was trained with, in pixels, which fixes the window of its head.
    """
    check_settings("pytorchvideo", settings, read=PYTORCHVIDEO_READ, fixed=PYTORCHVIDEO_FIXED)
    kernels, pools = one_of(
        "arch", settings["arch"], {"c2d": (C2D, True), "i3d": (I3D, True), "slow": (SLOW, False)}
    )
    return dict(
        depth=one_of("depth", settings["depth"], {50: 50, 101: 101, 152: 152}),
        width=settings.get("stem_dim_out", 64),
        conv1_kernel=[*kernels["conv1"], 7, 7],
        pool2_kernel=[2, 1, 1] if pools else None,
        temporal_kernels={stage: list(kernels[stage]) for stage in STAGES},
        head_window=[crop_size // 32, crop_size // 32],
        head_average="logits",
        normalization="kinetics",
    )


def from_file(code_base: str, facts: Settings) -> Tree:
    """The network of a settings file: its sections, under the names that READERS take.

    Raises UserError for a code base without a reader, a section or a setting that is missing.
    """
    read = one_of("--from", code_base, READERS)
    try:
        return read(facts)
    except KeyError as error:
        raise UserError(f"settings of {code_base}: {error.args[0]} is missing") from error


def from_torchvision(depth: int) -> Tree:
    """torchvision's ResNet for images: a C2D network that pools no time, for clips of one frame."""
    return dict(
        depth=one_of("depth", depth, {50: 50, 101: 101, 152: 152}),
        pool2_kernel=None,
        zero_init_residual=False,
    )


READERS: dict[str, Callable[[Settings], Tree]] = {
    "caffe2": lambda facts: from_caffe2(facts["MODEL"], facts["NONLOCAL"]),
    "slowfast": lambda facts: from_slowfast(
        facts["settings"], facts["frames"], facts.get("crop_size", 224)
    ),
    "mmaction2": lambda facts: from_mmaction2(facts["backbone"], facts["head"]),
    "pytorchvideo": lambda facts: from_pytorchvideo(facts["settings"], facts.get("crop_size", 224)),
    "torchvision": lambda facts: from_torchvision(facts["depth"]),
}
