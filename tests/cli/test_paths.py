"""Paths and names as users type them, from training to evaluation."""

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.commands import tool
from tests.conftest import write_gray_video

EXPERIMENT = """\
# @package _global_
defaults:
  - quickstart
  - override /data: folder
  - _self_
data:
  videos: clips
  num_workers: 0
  batch_size: 2
  clip: {num_frames: 4, crop_size: 32}
  augment: {short_side: [32, 32]}
  val_views: {crop_size: 32, short_side: 32}
  test_views: {crop_size: 32, short_side: 32}
trainer: {epochs: null, max_steps: 1}
"""


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A home folder with a data set: its path, its lists and its splits need quotes in Hydra."""
    root = tmp_path / "my (1), it's été=~[x]#"
    for label in ("run", "walk"):
        (root / "20_01" / label).mkdir(parents=True)
        first = write_gray_video(root / "20_01" / label / "0.mp4", num_frames=8)
        for part in ("train", "val"):
            (root / "clips").mkdir(exist_ok=True)
            shutil.copy(first, root / "clips" / f"{part}{label}_000000_000010.mp4")
    rows = [
        f"{label},{part}{label},0,10,{part}"
        for part in ("train", "val")
        for label in ("run", "walk")
    ]
    header = "label,youtube_id,time_start,time_end,split"
    (root / "all.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


@pytest.mark.slow  # three commands
def test_the_checkpoint_of_a_sweep_is_evaluated_under_the_path_that_it_prints(
    data_root: Path, tmp_path: Path
):
    environment = {**os.environ, "HOME": str(tmp_path)}
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(EXPERIMENT)
    root = f"data.root=~/{data_root.name}"
    words = ["--config-dir", ".", "+experiment=mine", root, "name=2024_01_02"]
    words += [
        "data.train=all.csv#train",
        "data.val=all.csv#val",
        "-m",
        "block=dot_product,gaussian",
    ]
    done = tool("train", *words, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    found = sorted((tmp_path / "outputs" / "2024_01_02" / "sweep").rglob("best.pt"))
    assert ["block=dot_product" in str(path) for path in found] == [True, False]
    shutil.copy(found[0], tmp_path / "epoch=3-step=10.ckpt")
    for weights in (str(found[0].relative_to(tmp_path)), "~/epoch=3-step=10.ckpt"):
        assert "," in weights or "=" in weights
        words = [f"weights={weights}", root, "data.test=20_01"]
        done = tool("eval", *words, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
