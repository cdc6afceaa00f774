"""video-nonlocal-net, the Caffe2 code of the authors of the paper (Wang et al. 2018)."""

from nlnet.checks import one_of
from nlnet.config import NonLocalConfig, ResNetConfig, StageFrames
from nlnet.errors import UserError
from nlnet.model.resnet3d import DEPTHS, STAGES
from nlnet.weights.code_base import CodeBase, Publisher, Settings
from nlnet.weights.keymap import Blocks, Format
from nlnet.weights.settings import C2D, I3D, check_eps, check_settings, stage_kernels

CAFFE2 = Format(
    "caffe2",
    {
        "backbone.conv1": "conv1",
        "backbone.norm1": "res_conv1_bn",
        "backbone.res{s}.block{i}.conv_{k}": "res{s}_{i}_branch2{k}",
        "backbone.res{s}.block{i}.norm_{k}": "res{s}_{i}_branch2{k}_bn",
        "backbone.res{s}.block{i}.shortcut": "res{s}_{i}_branch1",
        "backbone.res{s}.block{i}.shortcut_norm": "res{s}_{i}_branch1_bn",
        "backbone.res{s}.nl{i}.theta": "nonlocal_conv{s}_{i}_theta",
        "backbone.res{s}.nl{i}.phi": "nonlocal_conv{s}_{i}_phi",
        "backbone.res{s}.nl{i}.g": "nonlocal_conv{s}_{i}_g",
        "backbone.res{s}.nl{i}.out": "nonlocal_conv{s}_{i}_out",
        "backbone.res{s}.nl{i}.norm": "nonlocal_conv{s}_{i}_bn",
        "head.fc": "pred",
    },
    separator="_",
    conv_tensors={"weight": "w", "bias": "b"},
    # riv is the variance, not its inverse.
    norm_tensors={"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"},
    state="blobs",
    dropped=r"lr|model_iter|.*_momentum",
    affine=True,
    pool1_padding=0,
    blocks=Blocks(("input", "none"), bias="together"),
)

LONG_CLIP_GROUP = 4  # frames that attend to each other in res3 of the affine networks
MODEL_FIXED: Settings = {"MEAN": 114.75, "STD": 57.375, "USE_BGR": False}
MODEL_READ = {  # the second and third row are of training and memory
    *("VIDEO_ARC_CHOICE", "DEPTH", "MODEL_NAME", "USE_AFFINE", "BN_INIT_GAMMA", "BN_EPSILON"),
    *("NUM_CLASSES", "BN_MOMENTUM", "FC_INIT_STD", "MEMONGER", "SAMPLE_THREADS"),
    *("ALLOW_INPLACE_SUM", "ALLOW_INPLACE_RELU", "ALLOW_INPLACE_RESHAPE"),
}
NONLOCAL_READ = {
    *("CONV3_NONLOCAL", "CONV4_NONLOCAL", "LAYER_MOD", "NO_BIAS", "USE_MAXPOOL", "USE_SOFTMAX"),
    *("USE_SCALE", "USE_BN", "USE_AFFINE", "USE_ZERO_INIT_CONV", "BN_INIT_GAMMA", "BN_EPSILON"),
    *("BN_MOMENTUM", "CONV_INIT_STD"),
}


def from_caffe2(model: Settings, non_local: Settings) -> ResNetConfig:
    """Read the MODEL and NONLOCAL sections of the authors' configuration.

    The temporal sizes do not depend on the clip, because the head pools all frames.
    """
    check_settings("MODEL", model, read=MODEL_READ, fixed=MODEL_FIXED)
    check_settings("NONLOCAL", non_local, read=NONLOCAL_READ, fixed={})
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
    return ResNetConfig(
        depth=depth,
        conv1_kernel=[*kernels["conv1"], 7, 7],
        conv1_stride=[time, 2, 2],
        pool1_kernel=[time, 3, 3],
        pool1_stride=[time, 2, 2],
        pool1_padding=[0, 0, 0],
        temporal_kernels=stage_kernels(kernels),
        norm="affine" if model["USE_AFFINE"] else "batch",
        zero_init_residual=model["BN_INIT_GAMMA"] == 0,
        head_window=[7, 7],
        normalization="kinetics",
        non_local=_blocks(depth, model["USE_AFFINE"], non_local),
    )


def _blocks(depth: int, affine: bool, settings: Settings) -> NonLocalConfig:
    """Read the authors' non-local blocks; `affine` networks group the frames of res3."""
    if settings["USE_BN"] and settings["USE_AFFINE"]:
        raise UserError(
            "NONLOCAL.USE_BN and NONLOCAL.USE_AFFINE exclude each other: they share one scale and"
            " bias"
        )
    mod = settings["LAYER_MOD"]
    res3, res4 = (2, 4 * mod - 1) if depth == 101 else (mod, mod)
    counts = dict(zip(STAGES, DEPTHS[depth], strict=True))
    bias = not settings["NO_BIAS"]
    norm = "affine" if settings["USE_AFFINE"] else "none"
    zero_norm = settings["USE_BN"] and settings["BN_INIT_GAMMA"] == 0
    return NonLocalConfig(
        res3=list(range(res3 - 1, counts["res3"], res3)) if settings["CONV3_NONLOCAL"] else [],
        res4=list(range(res4 - 1, counts["res4"], res4)) if settings["CONV4_NONLOCAL"] else [],
        pairwise="embedded_gaussian" if settings["USE_SOFTMAX"] else "dot_product",
        scale=bool(settings["USE_SCALE"]),
        subsample="input" if settings["USE_MAXPOOL"] else "none",
        group_frames=StageFrames(res3=LONG_CLIP_GROUP if affine else None),
        embedding_bias=bias,
        out_bias=bias,
        norm="batch" if settings["USE_BN"] else norm,
        zero_init=bool(zero_norm or settings["USE_ZERO_INIT_CONV"]),
    )


PUBLISHER = Publisher(
    "https://dl.fbaipublicfiles.com/video-nonlocal/",
    "CC BY-NC 4.0, for non-commercial use only",
    {
        "c2d_32x2": "c2d_baseline_32x2_IN_pretrain_400k.pkl",
        "c2d_nl5_32x2": "c2d_nonlocal_32x2_IN_pretrain_400k.pkl",
        "i3d_32x2": "i3d_baseline_32x2_IN_pretrain_400k.pkl",
        "i3d_nl5_32x2": "i3d_nonlocal_32x2_IN_pretrain_400k.pkl",
        "i3d_128x1": "i3d_baseline_128x1_I3D_pretrain_400k.pkl",
        "i3d_nl5_128x1": "i3d_nonlocal_128x1_I3D_pretrain_400k.pkl",
        "c2d_8x8": "c2d_baseline_8x8_IN_pretrain_400k.pkl",
        "c2d_nl5_8x8": "c2d_nonlocal_8x8_IN_pretrain_400k.pkl",
        "i3d_8x8": "i3d_baseline_8x8_IN_pretrain_400k.pkl",
        "i3d_nl5_8x8": "i3d_nonlocal_8x8_IN_pretrain_400k.pkl",
        "i3d_32x4": "i3d_baseline_32x4_I3D_pretrain_400k.pkl",
        "i3d_nl5_32x4": "i3d_nonlocal_32x4_I3D_pretrain_400k.pkl",
        "i3d_8x8_300k": "i3d_baseline_8x8_IN_pretrain_300k.pkl",
        "i3d_8x8_300k_4gpu": "i3d_baseline_8x8_IN_pretrain_300k_4gpu.pkl",
        "i3d_8x8_600k_4gpu": "i3d_baseline_8x8_IN_pretrain_600k_4gpu.pkl",
    },
    aliases={
        "c2d_nonlocal_32x2": "c2d_nl5_32x2",
        "i3d_nonlocal_32x2": "i3d_nl5_32x2",
        "i3d_nonlocal_128x1": "i3d_nl5_128x1",
        "c2d_nonlocal_8x8": "c2d_nl5_8x8",
        "i3d_nonlocal_8x8": "i3d_nl5_8x8",
        "i3d_nonlocal_32x4": "i3d_nl5_32x4",
    },
)
CODE_BASE = CodeBase(
    formats={"caffe2": CAFFE2},
    read_settings=lambda facts: from_caffe2(facts["MODEL"], facts["NONLOCAL"]),
    undetermined=("dropout",),
    publisher=PUBLISHER,
)
