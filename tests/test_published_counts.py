"""Parameters of published networks are exact, multiply-adds are within half a percent."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from nlnet.cli.choices import CONFIG_DIR
from nlnet.cli.compose import to_run
from nlnet.config import RunConfig, register_schemas
from nlnet.model.build import build_model
from nlnet.model.cost import describe

ROOT = Path(__file__).parents[1]

PARAMETERS = {  # overrides -> learnable numbers with 400 classes
    "+experiment=c2d": 24_327_632,
    "+experiment=c2d_r101": 43_319_760,
    "+experiment=i3d": 28_043_472,
    "+experiment=i3d_r101": 51_754_192,
    "+experiment=i3d model=i3d_3x3x3_r50": 33_433_808,
    "+experiment=i3d_r101 model=i3d_3x3x3_r101": 63_042_768,
    "+experiment=c2d_nl1": 26_429_392,
    "+experiment=c2d_nl1_r101": 45_421_520,
    "+experiment=c2d_nl5": 31_686_096,
    "+experiment=c2d_nl5_r101": 50_678_224,
    "+experiment=c2d_nl10": 39_044_560,
    "+experiment=c2d_nl10_r101": 58_036_688,
    "+experiment=i3d_nl5": 35_401_936,
    "+experiment=i3d_nl5_r101": 59_112_656,
    "+experiment=i3d_nl10": 42_760_400,
    "+experiment=i3d_nl5 model.non_local.norm=none": 35_393_744,
    "+experiment=i3d_nl5 model.non_local.out_bias=false": 35_397_840,
    "+experiment=i3d_nl5 block=gaussian model.non_local.out_bias=false": 31_723_728,
    "+experiment=i3d_nl5 block=concatenation model.non_local.out_bias=false": 35_401_936,
    "+experiment=i3d model=slow_r50": 32_454_096,
    "+experiment=i3d_r101 model=slow_r101": 60_359_120,
    "+experiment=i3d_nl5 model=slow_r50": 39_812_560,
    "+experiment=i3d_gc model=slow_r50": 34_300_373,
    "+experiment=i3d_gc model=slow_r50 model.non_local.res3=[0,1,2,3] "
    "model.non_local.res4=[0,1,2,3,4,5] model.non_local.res5=[0,1,2]": 42_455_005,
}

PARAMETERS |= {  # networks of the code bases
    "+experiment=caffe2/c2d_32x2": 24_327_632,
    "+experiment=caffe2/c2d_r101_8x8": 43_319_760,
    "+experiment=caffe2/c2d_nl5_8x8": 31_686_096,
    "+experiment=caffe2/c2d_nl5_r101_8x8": 50_678_224,
    "+experiment=caffe2/i3d_nl5_8x8": 35_401_936,
    "+experiment=caffe2/i3d_nl5_r101_32x2": 59_112_656,
    "+experiment=caffe2/i3d_nl5_32x4": 35_393_744,
    "+experiment=caffe2/i3d_nl5_128x1": 35_393_744,
    "+experiment=c2d_r101 model.non_local.res3=[1,3] model.non_local.res4=[2,5,8,11,14,17,20]": (
        59_085_264
    ),
    "+experiment=slowfast/i3d_nl5_8x8": 35_401_936,
    "+experiment=slowfast/slow_8x8": 32_454_096,
    "+experiment=slowfast/slow_nl5_8x8": 39_812_560,
    "+experiment=mmaction2/i3d_nl5_embedded_gaussian_32x2": 35_397_840,
    "+experiment=mmaction2/i3d_nl5_dot_product_32x2": 35_397_840,
    "+experiment=mmaction2/i3d_nl5_gaussian_32x2": 31_723_728,
    "+experiment=mmaction2/i3d_nl5_concatenation_32x2": 35_401_936,
    "+experiment=mmaction2/i3d_heavy_32x2": 33_024_208,
    "+experiment=mmaction2/c2d_8x8": 24_327_632,
    "+experiment=mmaction2/slow_nl5_8x8": 39_808_464,
    "+experiment=pytorchvideo/i3d_8x8": 28_043_472,
}

MULTIPLY_ADDS = {  # overrides -> G at crops of 224 and 256
    "+experiment=c2d": (19.49, 25.46),
    "+experiment=i3d": (28.41, 37.10),
    "+experiment=c2d_nl5": (27.62, 37.27),
    "+experiment=i3d_nl5": (36.54, 48.91),
    "+experiment=i3d_r101": (46.96, 61.33),
    "+experiment=i3d_nl5_r101": (55.08, 73.14),
    "+experiment=c2d stem=no_pool2": (32.70, 42.71),
    "+experiment=c2d_32x2": (20.44, 26.69),
    "+experiment=c2d_32x2 model=c2d_r101": (35.29, 46.09),
    "+experiment=c2d_nl5_32x2": (28.57, None),
    "+experiment=c2d_nl10_32x2": (36.69, None),
    "+experiment=c2d_nl5_32x2 model=c2d_r101 non_local=nl5_r101": (43.41, None),
    "+experiment=i3d_32x2 model=i3d_r101": (51.68, None),
    "+experiment=i3d_32x2 model=i3d_3x3x3_r101": (62.26, None),
    "+experiment=i3d model=slow_r50": (41.74, 54.52),
    "+experiment=i3d_nl5 model=slow_r50": (63.98, 88.34),
    "+experiment=i3d model=slow_r50 data.clip.num_frames=4": (20.87, 27.26),
}

MULTIPLY_ADDS |= {
    "+experiment=caffe2/c2d_32x2": (20.23, 26.46),
    "+experiment=caffe2/i3d_32x2": (32.83, 42.93),
    "+experiment=caffe2/i3d_nl5_32x2": (40.96, 54.74),
    "+experiment=caffe2/i3d_nl5_128x1 model.non_local.group_frames.res3=null": (199.7, 280.2),
    "+experiment=caffe2/i3d_nl5_32x4": (150.61, 203.96),
    "+experiment=caffe2/c2d_8x8": (19.29, 25.23),
    "+experiment=caffe2/i3d_8x8": (28.11, 36.76),
    "+experiment=caffe2/i3d_nl5_8x8": (36.24, 48.57),
    "+experiment=slowfast/c2d_8x8": (19.49, 25.46),
    "+experiment=slowfast/c2d_nopool_8x8": (32.70, 42.71),
    "+experiment=slowfast/c2d_nl5_8x8": (27.62, 37.27),
    "+experiment=slowfast/i3d_8x8": (28.41, 37.10),
    "+experiment=slowfast/i3d_nl5_8x8": (36.54, 48.91),
    "+experiment=slowfast/i3d_r101_8x8": (46.96, 61.33),
    "+experiment=slowfast/i3d_nl5_r101_8x8": (55.08, 73.14),
    "+experiment=slowfast/slow_8x8": (41.74, 54.52),
    "+experiment=slowfast/slow_nl5_8x8": (63.98, 88.34),
    "+experiment=slowfast/slow_4x16": (20.87, 27.26),
    "+experiment=slowfast/slow_nl5_4x16": (29.00, 39.07),
    "+experiment=mmaction2/i3d_32x2": (33.13, 43.27),
    "+experiment=mmaction2/i3d_nl5_dot_product_32x2": (None, 59.1),
    "+experiment=mmaction2/i3d_heavy_32x2": (126.8, 165.6),
    "+experiment=mmaction2/c2d_8x8": (19.29, 25.23),
}


FEW = (  # not slow
    "+experiment=c2d",
    "+experiment=i3d_nl5",
    "+experiment=caffe2/i3d_nl5_32x2",
    "+experiment=i3d model=slow_r50",
)
ROWS = [
    pytest.param(
        overrides,
        size,
        published,
        marks=[] if overrides in FEW and size == 224 else [pytest.mark.slow],
    )
    for overrides, row in MULTIPLY_ADDS.items()
    for size, published in zip((224, 256), row, strict=True)
    if published is not None
]


def composed(overrides: str) -> RunConfig:
    register_schemas()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return to_run(compose("run", overrides=["data.root=videos", *overrides.split()]))


@pytest.mark.parametrize("overrides", PARAMETERS)
def test_parameters_are_exact(overrides: str):
    with torch.device("meta"):
        model = build_model(composed(overrides).model, num_classes=400)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[overrides]


@pytest.mark.parametrize(("overrides", "size", "published"), ROWS)
def test_multiply_adds(overrides: str, size: int, published: float):
    run = composed(overrides)
    build = partial(build_model, run.model, num_classes=400)
    stages = describe(build, run.data.clip.num_frames, size)
    assert sum(s.multiply_adds for s in stages) / 1e9 == pytest.approx(published, rel=0.005)


def test_the_activation_memory_is_what_autograd_keeps():
    """Compared with the bytes that a real step keeps on a CPU."""
    run = composed("+experiment=c2d model=c2d_tiny")
    kept: dict[int, int] = {}
    model = build_model(run.model, num_classes=10)
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in weights:
            kept[pointer] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(torch.randn(1, 3, 8, 64, 64))
    described = sum(stage.activation_bytes for stage in describe(lambda: model, 8, 64))
    assert logits.shape == (1, 10)
    assert described == pytest.approx(sum(kept.values()), rel=0.02)


def test_the_tool_writes_what_it_prints(tmp_path: Path):
    path = tmp_path / "i3d_nl5.json"
    command = [sys.executable, str(ROOT / "tools/describe.py"), "+experiment=i3d_nl5"]
    done = subprocess.run([*command, f"json={path}"], capture_output=True, text=True, check=True)
    written = json.loads(path.read_text())
    assert written["parameters"] == 35_401_936
    assert f"{written['parameters']:,}" in done.stdout
    assert written["multiply_adds"] == pytest.approx(36.54e9, rel=0.005)
    positions = {stage["name"]: stage["non_local"] for stage in written["stages"]}
    assert positions["res3"] == ["nl1", "nl3"] and positions["res4"] == ["nl1", "nl3", "nl5"]
