"""The boxes are where the objects are, and the demonstration attends to the other object."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.scripts.importing import SCRIPTS, import_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return import_script("score_attention")


@pytest.mark.parametrize("number", range(6))
def test_the_boxes_hold_all_colored_pixels(script: ModuleType, number: int):
    """Only objects have colors: background and distractors are gray."""
    import make_same_different as maker

    scene = script.Scene(noise=0.0)
    entropy = (0, script.SPLITS["test"], number)
    same = number % 2 == 1
    video = maker.draw_clip(np.random.default_rng(entropy), same, scene).astype(int)
    colored = video.max(axis=3) - video.min(axis=3) > 20
    boxes = script.boxes_of(scene, same, entropy)
    inside = (boxes.first[..., 0] > 0) | (boxes.second[..., 0] > 0)
    assert (inside | ~colored).all()
    for box in boxes:
        held = colored & (box[..., 0] > 0)
        assert held.sum() > 0.2 * (box[..., 0] > 0).sum()
        assert colored[script.center(box[..., 0] / 255)]


@pytest.mark.slow
def test_the_demonstration_attends_to_what_it_uses(tmp_path: Path):
    """Attention on the first object, and deletion, of 25 held-out videos of each class."""
    root = tmp_path / "videos"
    make = [sys.executable, str(SCRIPTS / "make_same_different.py"), "--out", str(root)]
    sizes = ["--train", "2", "--val", "2", "--test", "50", "--workers", "1"]
    subprocess.run([*make, *sizes], check=True)
    score = [sys.executable, str(SCRIPTS / "score_attention.py"), "--data", str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(score, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ratios = [float(x) for x in re.findall(r"mass ([\d.]+) times", done.stdout)]
    assert len(ratios) == 2
    assert max(ratios) >= 4
    shares = re.findall(r"res3\.nl1, (\w+): .*faster than random in (\d+) %", done.stdout)
    assert [name for name, _ in shares] == ["different", "same"]
    assert min(int(share) for _, share in shares) >= 80
