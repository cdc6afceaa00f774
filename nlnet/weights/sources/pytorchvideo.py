"""pytorchvideo: the networks of its hub."""

from nlnet.checks import one_of
from nlnet.config import ResNetConfig
from nlnet.weights.code_base import CodeBase, Publisher, Settings
from nlnet.weights.keymap import Format
from nlnet.weights.settings import C2D, I3D, SLOW, check_settings, stage_kernels

PYTORCHVIDEO = Format(  # C2D and I3D: the pooling after res2 is a block with a number
    "pytorchvideo",
    {
        "backbone.conv1": "blocks.0.conv",
        "backbone.norm1": "blocks.0.norm",
        "backbone.res{s}.block{i}.conv_{k}": "blocks.{p}.res_blocks.{i}.branch2.conv_{k}",
        "backbone.res{s}.block{i}.norm_{k}": "blocks.{p}.res_blocks.{i}.branch2.norm_{k}",
        "backbone.res{s}.block{i}.shortcut": "blocks.{p}.res_blocks.{i}.branch1_conv",
        "backbone.res{s}.block{i}.shortcut_norm": "blocks.{p}.res_blocks.{i}.branch1_norm",
        "head.fc": "blocks.6.proj",
    },
    state="model_state",
    pools=True,
)
PYTORCHVIDEO_SLOW = Format(
    "pytorchvideo",
    {
        **{ours: theirs.replace("{p}", "{l}") for ours, theirs in PYTORCHVIDEO.modules.items()},
        "head.fc": "blocks.5.proj",
    },
    state="model_state",
    pools=False,
)
PYTORCHVIDEO_MODULES = Format(  # networks built of pytorchvideo's modules: PytorchvideoConfig
    "pytorchvideo",
    {
        "backbone.conv1.{r}": "blocks.0.{r}",
        "backbone.res{s}.block{i}.{r}": "blocks.{l}.res_blocks.{i}.{r}",
        "head.pool.{r}": "blocks.5.pool.{r}",
        "head.fc": "blocks.5.proj",
    },
    state="model_state",
    pools=False,
)

FIXED: Settings = {
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
READ = {"arch", "depth", "stem_dim_out", "model_num_class", "dropout_rate"}
ARCHITECTURES = {  # name -> temporal kernels, and whether time is halved after res2
    "c2d": (C2D, True),
    "i3d": (I3D, True),
    "slow": (SLOW, False),
}


def from_pytorchvideo(settings: Settings, crop_size: int = 224) -> ResNetConfig:
    """Read the architecture and the depth of a network of the hub.

    `crop_size` is the crop that it was trained with, in pixels; it determines the window of the
    head.
    """
    check_settings("pytorchvideo", settings, read=READ, fixed=FIXED)
    kernels, pools = one_of("arch", settings["arch"], ARCHITECTURES)
    return ResNetConfig(
        depth=one_of("depth", settings["depth"], {50: 50, 101: 101, 152: 152}),
        width=settings.get("stem_dim_out", 64),
        conv1_kernel=[*kernels["conv1"], 7, 7],
        pool2_kernel=[2, 1, 1] if pools else None,
        temporal_kernels=stage_kernels(kernels),
        head_window=[crop_size // 32, crop_size // 32],
        head_average="logits",
        normalization="kinetics",
    )


PUBLISHER = Publisher(
    "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/",
    "Apache 2.0",
    {
        "c2d_8x8": "C2D_8x8_R50.pyth",
        "i3d_8x8": "I3D_8x8_R50.pyth",
        "slow_8x8": "SLOW_8x8_R50.pyth",
        "slow_4x16": "SLOW_4x16_R50.pyth",
        "r2plus1d_r50_16x4": "R2PLUS1D_16x4_R50.pyth",
        "csn_r101_32x2": "CSN_32x2_R101.pyth",
        "x3d_m_16x5": "X3D_M.pyth",
    },
    aliases={
        "c2d_r50": "c2d_8x8",
        "i3d_r50": "i3d_8x8",
        "slow_r50": "slow_8x8",
        "slow_4x16_r50": "slow_4x16",
        "r2plus1d_r50": "r2plus1d_r50_16x4",
        "csn_r101": "csn_r101_32x2",
        "x3d_m": "x3d_m_16x5",
    },
)
CODE_BASE = CodeBase(
    formats={
        "pytorchvideo": PYTORCHVIDEO,
        "pytorchvideo_slow": PYTORCHVIDEO_SLOW,
        "pytorchvideo_modules": PYTORCHVIDEO_MODULES,
    },
    read_settings=lambda facts: from_pytorchvideo(facts["settings"], facts.get("crop_size", 224)),
    undetermined=("dropout", "zero_init_residual"),
    publisher=PUBLISHER,
)
