"""PySlowFast: its networks with one pathway."""

from collections.abc import Sequence
from typing import Any

from nlnet.checks import one_of
from nlnet.config import NonLocalConfig, ResNetConfig, StageFrames, StageSizes
from nlnet.model.resnet3d import DEPTHS, STAGES
from nlnet.weights.code_base import CodeBase, Publisher, Settings
from nlnet.weights.keymap import Blocks, Format
from nlnet.weights.settings import C2D, I3D, SLOW, check_eps, check_settings, stage_kernels

SLOWFAST = Format(
    "slowfast",
    {
        "backbone.conv1": "s1.pathway0_stem.conv",
        "backbone.norm1": "s1.pathway0_stem.bn",
        "backbone.res{s}.block{i}.conv_{k}": "s{s}.pathway0_res{i}.branch2.{k}",
        "backbone.res{s}.block{i}.norm_{k}": "s{s}.pathway0_res{i}.branch2.{k}_bn",
        "backbone.res{s}.block{i}.shortcut": "s{s}.pathway0_res{i}.branch1",
        "backbone.res{s}.block{i}.shortcut_norm": "s{s}.pathway0_res{i}.branch1_bn",
        "backbone.res{s}.nl{i}.theta": "s{s}.pathway0_nonlocal{i}.conv_theta",
        "backbone.res{s}.nl{i}.phi": "s{s}.pathway0_nonlocal{i}.conv_phi",
        "backbone.res{s}.nl{i}.g": "s{s}.pathway0_nonlocal{i}.conv_g",
        "backbone.res{s}.nl{i}.out": "s{s}.pathway0_nonlocal{i}.conv_out",
        "backbone.res{s}.nl{i}.norm": "s{s}.pathway0_nonlocal{i}.bn",
        "head.fc": "head.projection",
    },
    state="model_state",
    blocks=Blocks(("input", "none"), bias="always", norm=True),
)

# PySlowFast's values of settings that change the network's output, for settings that are absent.
DEFAULTS: Settings = {
    "stride_in_1x1": False,
    "width_per_group": 64,
    "num_block_temporal_kernel": [[3], [4], [6], [3]],
    "head_act": "softmax",
    "zero_init_final_bn": True,  # False in its code, True in its configurations for Kinetics
    "nonlocal_location": [[[]]] * 4,
    "nonlocal_groups": [[1]] * 4,
    "nonlocal_instantiation": "dot_product",
    "nonlocal_pool": [[[1, 2, 2], [1, 2, 2]]] * 4,
}
FIXED: Settings = {
    "trans_func": "bottleneck_transform",
    "num_groups": 1,
    "spatial_strides": [[1], [2], [2], [2]],
    "spatial_dilations": [[1], [1], [1], [1]],
    "norm_type": "batchnorm",
    "input_channel_num": [3],
    "reverse_input_channel": False,
}
TRAINING = {
    *("num_classes", "dropout_rate", "dropconnect_rate", "fc_init_std", "loss_func"),
    *("zero_init_final_conv", "inplace_relu", "act_checkpoint", "detach_final_fc", "model_name"),
}
ARCHITECTURES = {  # MODEL.ARCH -> temporal kernels, and whether time is halved after res2
    "2d": (C2D, False),
    "c2d": (C2D, True),
    "slow_c2d": (C2D, False),
    "c2d_nopool": (C2D, False),
    "i3d": (I3D, True),
    "i3d_nopool": (I3D, False),
    "slow_i3d": (I3D, False),
    "slow": (SLOW, False),
}


def from_slowfast(settings: Settings, frames: int, crop_size: int = 224) -> ResNetConfig:
    """Read the settings of a network with one pathway.

    Args:
        settings: by their names in PySlowFast's configuration, in lower case
        frames: length of the clips; the groups of non-local blocks divide it
        crop_size: crop that the network was trained with, in pixels; it determines the window of
            the head
    """
    read = {"arch", "depth", "epsilon", *DEFAULTS, *TRAINING}
    check_settings("SlowFast", settings, read=read, fixed=FIXED)
    check_eps("BN.epsilon", settings)
    settings = {**DEFAULTS, **settings}
    kernels, pools = one_of("MODEL.ARCH", settings["arch"], ARCHITECTURES)
    depth = one_of("RESNET.DEPTH", settings["depth"], {18: 26, 50: 50, 101: 101})
    counts = dict(zip(STAGES, DEPTHS[depth], strict=True))
    inflated = _per_stage(settings["num_block_temporal_kernel"])
    table = {
        stage: [
            kernels[stage][i % len(kernels[stage])] if i < inflated[stage] else 1
            for i in range(counts[stage])
        ]
        for stage in STAGES
    }
    activations = {name: name for name in ("softmax", "sigmoid")}
    return ResNetConfig(
        depth=depth,
        width=settings["width_per_group"],
        conv1_kernel=[*kernels["conv1"], 7, 7],
        pool2_kernel=[2, 1, 1] if pools else None,
        temporal_kernels=stage_kernels(table),
        stride_conv="a" if settings["stride_in_1x1"] else "b",
        zero_init_residual=settings["zero_init_final_bn"],
        head_window=[crop_size // 32, crop_size // 32],
        activation=one_of("MODEL.HEAD_ACT", settings["head_act"], activations),
        normalization="kinetics",
        non_local=_blocks(settings, frames, pools),
    )


def _blocks(settings: Settings, frames: int, pools: bool) -> NonLocalConfig:
    """Read PySlowFast's non-local blocks; `pools` halves the number of frames after res2."""
    places = _per_stage(settings["nonlocal_location"])
    groups = _per_stage(settings["nonlocal_groups"])
    kernels = {
        stage: list(kernel or (1, 1, 1))
        for stage, kernel in _per_stage(settings["nonlocal_pool"]).items()
        if places[stage]
    }
    kernel = next(iter(kernels.values()), [1, 2, 2])
    pooled = not kernels or any(size != [1, 1, 1] for size in kernels.values())
    length = {stage: frames // 2 if pools and stage != "res2" else frames for stage in STAGES}
    pairwise = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
    res2, res3, res4, res5 = (list(places[stage]) for stage in STAGES)
    return NonLocalConfig(
        res2=res2,
        res3=res3,
        res4=res4,
        res5=res5,
        pairwise=one_of("NONLOCAL.INSTANTIATION", settings["nonlocal_instantiation"], pairwise),
        group_frames=StageFrames(
            *(length[stage] // groups[stage] if groups[stage] > 1 else None for stage in STAGES)
        ),
        subsample="input" if pooled else "none",
        subsample_kernel=kernel,
        stage_subsample_kernel=StageSizes(
            *(size if size != kernel else None for size in map(kernels.get, STAGES))
        ),
        init="kaiming",
    )


def _per_stage(values: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Convert [[res2], [res3], [res4], [res5]], with one entry per pathway, to a dict by stage."""
    return {stage: pathways[0] for stage, pathways in zip(STAGES, values, strict=True)}


PUBLISHER = Publisher(
    "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/",
    "Apache 2.0",
    {
        "c2d_nopool_8x8": "C2D_NOPOOL_8x8_R50.pkl",
        "i3d_8x8": "I3D_8x8_R50.pkl",
        "i3d_nl5_8x8": "I3D_NLN_8x8_R50.pkl",
        "slow_4x16": "SLOWONLY_4x16_R50.pkl",
        "slow_8x8": "SLOWONLY_8x8_R50.pkl",
    },
    aliases={
        "C2D_NOPOOL_8x8_R50": "c2d_nopool_8x8",
        "I3D_8x8_R50": "i3d_8x8",
        "I3D_NLN_8x8_R50": "i3d_nl5_8x8",
        "SLOWONLY_4x16_R50": "slow_4x16",
        "SLOWONLY_8x8_R50": "slow_8x8",
    },
)
CODE_BASE = CodeBase(
    formats={"slowfast": SLOWFAST},
    read_settings=lambda facts: from_slowfast(
        facts["settings"], facts["frames"], facts.get("crop_size", 224)
    ),
    undetermined=("dropout",),
    publisher=PUBLISHER,
)
