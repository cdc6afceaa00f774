"""The presets of published networks agree with their sources' settings, protocols and recipes."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import ResNetConfig, RunConfig, register_schemas
from nlnet.model.resnet3d import DEPTHS, STAGES
from nlnet.weights.public import public_name
from nlnet.weights.sources.all import CODE_BASES
from nlnet.weights.sources.caffe2 import from_caffe2
from nlnet.weights.sources.mmaction2 import from_mmaction2
from nlnet.weights.sources.pytorchvideo import from_pytorchvideo
from nlnet.weights.sources.slowfast import from_slowfast

Tree = dict[str, Any]
SOURCES = ("caffe2", "slowfast", "mmaction2", "pytorchvideo")
EXPERIMENTS = CONFIG_DIR / "experiment"
PRESETS = {
    source: sorted(path.stem for path in (EXPERIMENTS / source).glob("*.yaml"))
    for source in SOURCES
}


@cache
def preset(name: str, *overrides: str) -> RunConfig:
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return to_run(compose("run", overrides=["data.root=.", f"+experiment={name}", *overrides]))


def canonical(model: ResNetConfig) -> Tree:
    """Return the settings that the output depends on, with each pattern expanded."""
    tree: Any = OmegaConf.to_container(OmegaConf.structured(model))
    counts = dict(zip(STAGES, DEPTHS[model.depth], strict=True))
    kernels = tree["temporal_kernels"]
    for stage, count in counts.items():
        kernels[stage] = [kernels[stage][i % len(kernels[stage])] for i in range(count)]
    if tree["pool2_kernel"] is None:
        del tree["pool2_stride"], tree["pool2_padding"]
    blocks = tree["non_local"]
    if not any(blocks[stage] for stage in STAGES):
        del tree["non_local"]
    elif blocks["pairwise"] != "embedded_gaussian":
        del blocks["scale"]  # it only applies to a softmax
    return tree


def caffe2_settings(name: str) -> ResNetConfig:
    """Return the authors' settings, from their scripts and configurations."""
    words = name.split("_")
    affine = words[-1] in ("32x4", "128x1")
    deep = "r101" in words
    blocks = "nl5" in words
    arc = {("c2d", False): 1, ("i3d", False): 2, ("c2d", True): 3, ("i3d", True): 4}
    model = {
        "MODEL_NAME": "resnet_video_org" if words[-1] in ("32x2", "128x1") else "resnet_video",
        "DEPTH": 101 if deep else 50,
        "VIDEO_ARC_CHOICE": arc[words[0], deep],
        "USE_AFFINE": affine,
        "BN_INIT_GAMMA": 0.0,
    }
    non_local = {
        "CONV3_NONLOCAL": blocks,
        "CONV4_NONLOCAL": blocks,
        "LAYER_MOD": 2,
        "NO_BIAS": 0,
        "USE_MAXPOOL": True,
        "USE_SOFTMAX": True,
        "USE_SCALE": True,
        "USE_BN": not affine,
        "USE_AFFINE": False,
        "USE_ZERO_INIT_CONV": affine,
        "BN_INIT_GAMMA": 0.0,
    }
    return from_caffe2(model, non_local)


def slowfast_settings(name: str) -> ResNetConfig:
    words = name.split("_")
    arch = "slow_c2d" if "nopool" in words else words[0]
    depth = 101 if "r101" in words else 50
    dot = "dot" in words or (arch == "slow" and "nl5" in words)
    places = [[[]], [[1, 3]], [[1, 3, 5]], [[]]] if "nl5" in words else [[[]]] * 4
    settings = {
        "arch": arch,
        "depth": depth,
        "nonlocal_location": places,
        "nonlocal_groups": [[1]] * 4,
        "nonlocal_instantiation": "dot_product" if dot else "softmax",
        "nonlocal_pool": [[[1, 2, 2], [1, 2, 2]]] * 4,
        "num_block_temporal_kernel": [[count] for count in DEPTHS[depth]],
        "stride_in_1x1": False,
    }
    return from_slowfast(settings, int(words[-1].split("x")[0]))


ODD = ((0, 0, 0), (0, 1, 0, 1), (0, 1, 0, 1, 0, 1), (0, 0, 0))
EVEN = ((0, 0, 0), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 0, 0))
I3D = {"conv1_kernel": (5, 7, 7), "conv1_stride_t": 2, "pool1_stride_t": 2}
I3D |= {"inflate": ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))}
MMACTION2: dict[str, Tree] = {
    "i3d_32x2": {"type": "ResNet3d", **I3D, "zero_init_residual": False},
    "i3d_heavy_32x2": {
        "type": "ResNet3d",
        "conv1_kernel": (5, 7, 7),
        "conv1_stride_t": 1,
        "pool1_stride_t": 1,
        "inflate": (1, 1, 1, 1),
        "zero_init_residual": False,
    },
    "c2d_8x8": {"type": "C2D"},
    "c2d_16x4": {"type": "C2D"},
    "c2d_nopool_8x8": {"type": "ResNet"},
    "c2d_nopool_r101_8x8": {"type": "ResNet", "depth": 101},
    "slow_4x16": {"type": "ResNet3dSlowOnly"},
    "slow_8x8": {"type": "ResNet3dSlowOnly"},
}
BN3D = {"type": "BN3d", "requires_grad": True}
for mode in ("gaussian", "embedded_gaussian", "dot_product", "concatenation"):
    block = {"sub_sample": True, "use_scale": False, "norm_cfg": BN3D, "mode": mode}
    MMACTION2[f"i3d_nl5_{mode}_32x2"] = {
        **MMACTION2["i3d_32x2"],
        "non_local": ODD,
        "non_local_cfg": block,
    }
for clip in ("4x16", "8x8"):
    block = {"sub_sample": True, "use_scale": True, "norm_cfg": BN3D, "mode": "embedded_gaussian"}
    MMACTION2[f"slow_nl5_{clip}"] = {
        "type": "ResNet3dSlowOnly",
        "non_local": EVEN,
        "non_local_cfg": block,
    }


def mmaction2_settings(name: str) -> ResNetConfig:
    return from_mmaction2(MMACTION2[name], {"type": "I3DHead", "spatial_type": "avg"})


OWN = {  # networks built of pytorchvideo's modules, and what their heads average
    "csn_r101_32x2": "logits",
    "r2plus1d_r50_16x4": "probabilities",
    "x3d_m_16x5": "probabilities",
}


def pytorchvideo_settings(name: str) -> ResNetConfig:
    return from_pytorchvideo({"arch": name.split("_")[0], "depth": 50})


SETTINGS = {
    "caffe2": caffe2_settings,
    "slowfast": slowfast_settings,
    "mmaction2": mmaction2_settings,
    "pytorchvideo": pytorchvideo_settings,
}


@pytest.mark.parametrize(
    ("source", "name"),
    [(source, name) for source in SOURCES for name in PRESETS[source] if name not in OWN],
)
def test_a_preset_equals_the_settings_of_its_source(source: str, name: str):
    run = preset(f"{source}/{name}")
    assert canonical(run.model) == canonical(SETTINGS[source](name))
    frames, stride = (int(number) for number in name.split("_")[-1].split("x"))
    assert (run.data.clip.num_frames, run.data.clip.frame_stride) == (frames, stride)
    assert run.data.clip.sampler == source


def test_every_published_network_has_a_preset():
    clips = ("8x8", "32x2", "32x4", "128x1")
    networks = [
        f"{net}{nl}{deep}"
        for net in ("c2d", "i3d")
        for nl in ("", "_nl5")
        for deep in ("", "_r101")
    ]
    assert PRESETS["caffe2"] == sorted(f"{net}_{clip}" for net in networks for clip in clips)
    assert PRESETS["mmaction2"] == sorted(MMACTION2)
    assert {"c2d_8x8", "c2d_nopool_8x8", "c2d_nl5_8x8", "i3d_8x8", "i3d_nl5_8x8"} <= {
        *PRESETS["slowfast"]
    }
    assert {"slow_8x8", "slow_nl5_8x8", "slow_4x16", "slow_nl5_4x16"} <= {*PRESETS["slowfast"]}
    assert PRESETS["pytorchvideo"] == sorted(["c2d_8x8", "i3d_8x8", "slow_4x16", "slow_8x8", *OWN])


@pytest.mark.parametrize("name", OWN)
def test_a_network_of_pytorchvideo_is_evaluated_as_it_was_trained(name: str):
    run = preset(f"pytorchvideo/{name}")
    network, _, size = name.rpartition("_")
    frames, stride = (int(number) for number in size.split("x"))
    clip, views = run.data.clip, run.data.test_views
    assert run.model.network == network and run.model.head_average == OWN[name]
    assert (clip.num_frames, clip.frame_stride, clip.sampler) == (frames, stride, "pytorchvideo")
    assert (clip.crop_size, views.crop_size, views.short_side) == (224, 256, 256)
    assert run.model.head_window == [clip.crop_size // 32] * 2
    command = (CONFIG_DIR / "model" / "pytorchvideo" / f"{network}.yaml").read_text()
    assert f"+experiment=pytorchvideo/{name} weights=pytorchvideo/{name}" in command


@pytest.mark.parametrize("model", ["slow_r50", "slow_r101"])
@pytest.mark.parametrize("stem", ["padded", "caffe2", "no_pool2"])
def test_a_slow_network_never_pools_after_res2(model: str, stem: str):
    assert preset("i3d", f"model={model}", f"stem={stem}").model.pool2_kernel is None
    assert preset("i3d", f"model={model}").model.pool2_kernel is None
    assert preset("i3d").model.pool2_kernel == [2, 1, 1]


PROTOCOLS: Mapping[str, tuple[Any, ...]] = {
    # sampler, end of the video, head window, average, normalization, crop, short side, places
    "caffe2": ("caffe2", "loop", [7, 7], "probabilities", "kinetics", 256, 256, "stepped"),
    "slowfast": ("slowfast", "hold", [7, 7], "probabilities", "kinetics", 256, 256, "ceiled"),
    "mmaction2": ("mmaction2", "loop", None, "probabilities", "imagenet", 256, 256, "stepped"),
    "mmaction2_224": ("mmaction2", "loop", None, "probabilities", "imagenet", 224, 224, "stepped"),
    "pytorchvideo": ("pytorchvideo", "hold", [7, 7], "logits", "kinetics", 256, 256, "ceiled"),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_equals_that_of_its_source(name: str):
    """Ten clips of three crops, as section 5 of each source's description says."""
    run = preset("i3d", f"protocol={name}")
    views, clip, model = run.data.test_views, run.data.clip, run.model
    assert (views.num_clips, views.num_crops) == (10, 3)
    assert (
        clip.sampler,
        clip.short,
        model.head_window,
        model.head_average,
        model.normalization,
        views.crop_size,
        views.short_side,
        views.crops,
    ) == PROTOCOLS[name]


@pytest.mark.parametrize(
    ("recipe", "batch", "lr", "length", "falls"),
    [
        ("paper", 64, 0.01, 400_000, (150_000, 300_000)),
        ("caffe2", 64, 0.01, 400_000, (150_000, 300_000)),
        ("caffe2_300k", 64, 0.01, 300_000, (150_000, 250_000)),
        ("caffe2_4gpu_600k", 32, 0.005, 600_000, (300_000, 500_000)),
        ("caffe2_4gpu_300k", 32, 0.005, 300_000, (150_000, 250_000)),
        ("caffe2_affine", 16, 0.0025, 400_000, (150_000, 300_000)),
        ("slowfast_imagenet", 64, 0.01, 118, (44, 88)),
        ("mmaction2", 64, 0.01, 100, (40, 80)),
        ("mmaction2_slow_imagenet", 128, 0.01, 256, (90, 130)),
        ("charades", 8, 0.00125, 200_000, (75_000, 150_000)),
    ],
)
def test_a_recipe_has_the_schedule_of_its_source(
    recipe: str, batch: int, lr: float, length: int, falls: tuple[int, ...]
):
    run: Any = preset("i3d", f"recipe={recipe}")
    assert (run.data.batch_size, run.optim.lr) == (batch, lr)
    assert (run.trainer.max_steps or run.trainer.epochs) == length
    assert [share * length for share in run.schedule.milestones] == pytest.approx(falls)
    assert run.optim.momentum == 0.9 and run.optim.weight_decay == 1e-4
    assert run.optim.nesterov is (not recipe.startswith("mmaction2"))
    assert run.optim.decay_norm is recipe.startswith("mmaction2")


def test_slowfast_from_scratch_is_a_cosine_with_warmup():
    run: Any = preset("i3d", "recipe=slowfast_scratch")
    assert (run.trainer.epochs, run.data.batch_size, run.optim.lr) == (196, 64, 0.1)
    assert run.schedule.warmup == 34 and run.schedule.floor == 0
    assert run.schedule.warmup_start * run.optim.lr == pytest.approx(0.01)


def test_mmaction2_slow_from_scratch_is_a_cosine_with_warmup():
    run: Any = preset("mmaction2/slow_8x8")
    assert (run.trainer.epochs, run.data.batch_size, run.optim.lr) == (256, 128, 0.2)
    assert run.schedule.warmup == 34 and run.schedule.floor == 0 and run.weights is None
    assert run.optim.momentum == 0.9 and not run.optim.nesterov


def test_mmaction2_slow_with_blocks_starts_from_image_weights():
    for name in ("slow_nl5_4x16", "slow_nl5_8x8"):
        run: Any = preset(f"mmaction2/{name}")
        assert run.weights == "torchvision/resnet50" and run.data.batch_size == 128
        assert (run.schedule.warmup, run.schedule.warmup_start) == (10, 0.1)
        assert run.data.augment.crop == "resized" and run.data.augment.area == [0.08, 1.0]


def test_charades_has_several_labels_per_video():
    run = preset("charades")
    assert run.data.videos == "Charades_v1_480" and run.data.clip.num_frames == 128
    assert run.model.activation == "sigmoid"
    assert run.model.norm == "affine" and run.model.non_local.norm == "none"
    assert run.data.test_views.short_side == 320


# Public weights without an experiment of the same name, and the reason.
WITHOUT_EXPERIMENT = {
    "caffe2/i3d_8x8_300k": "the network of caffe2/i3d_8x8, trained with a shorter recipe",
    "caffe2/i3d_8x8_300k_4gpu": "the network of caffe2/i3d_8x8, trained on 4 GPUs",
    "caffe2/i3d_8x8_600k_4gpu": "the network of caffe2/i3d_8x8, trained on 4 GPUs",
    "mmaction2/i3d_dense_32x2": "the network of mmaction2/i3d_32x2, trained on dense clips",
    "mmaction2/slow_r101_8x8": "no preset of this depth",
    "torchvision/resnet50": "a network for images",
    "torchvision/resnet50_v2": "a network for images",
    "torchvision/resnet101": "a network for images",
    "torchvision/resnet101_v2": "a network for images",
    "torchvision/resnet152": "a network for images",
    "torchvision/resnet152_v2": "a network for images",
}
PUBLIC = [
    f"{source}/{name}"
    for source, code_base in CODE_BASES.items()
    for name in code_base.publisher.paths
]
ALIASES = [
    (f"{source}/{old}", f"{source}/{new}")
    for source, code_base in CODE_BASES.items()
    for old, new in code_base.publisher.aliases.items()
]


def test_public_weights_and_experiments_have_the_same_names():
    without = [name for name in PUBLIC if not (EXPERIMENTS / f"{name}.yaml").is_file()]
    assert sorted(without) == sorted(WITHOUT_EXPERIMENT)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in WITHOUT_EXPERIMENT])
def test_the_head_comment_of_an_experiment_names_its_weights(name: str):
    command = f"python tools/eval.py +experiment={name} weights={name} data.root=PATH"
    assert command in (EXPERIMENTS / f"{name}.yaml").read_text()


@pytest.mark.parametrize(("old", "new"), ALIASES)
def test_former_public_names_are_aliases(old: str, new: str):
    assert old not in PUBLIC and new in PUBLIC
    assert public_name(old) == public_name(new) == new
