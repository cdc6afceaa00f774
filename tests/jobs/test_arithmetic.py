"""A run in bfloat16 on a device whose kernel is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nlnet.jobs.train import train
from tests.cli.commands import run_config

WORDS = (
    *("model.width=8", "data.clip.num_frames=4", "data.clip.crop_size=32"),
    *("data.augment.short_side=[32,40]", "data.val_views.crop_size=32"),
    *("data.batch_size=4", "data.num_workers=0", "trainer.max_steps=20", "optim.lr=3e-4"),
    "trainer.eval_every=10",
)


@pytest.fixture
def root(video_file: Callable[..., Path], tmp_path: Path) -> Path:
    for split in ("train", "val", "test"):
        for i in range(4):
            video_file(f"{split}/dark/{i}.mp4", num_frames=8, size=(40, 48), tint=(1, 0, 0))
            video_file(f"{split}/light/{i}.mp4", num_frames=8, size=(40, 48), tint=(0, 1, 1))
    return tmp_path


def losses(root: Path, precision: str, *, lean: bool = False) -> np.ndarray:
    out_dir = root / (f"lean_{precision}" if lean else precision)
    out_dir.mkdir()
    words = [f"data.root={root}", f"trainer.precision={precision}", f"trainer.lean={lean}"]
    train(run_config(*WORDS, *words), out_dir)
    epochs = json.loads((out_dir / "metrics.json").read_text())["epochs"]
    return np.array([epoch["train"]["loss"] for epoch in epochs])


@pytest.mark.slow
@pytest.mark.usefixtures("wrong_kernel")
def test_training_in_bfloat16_has_the_losses_of_float32(root: Path):
    exact, found = losses(root, "fp32"), losses(root, "bf16")
    assert len(exact) == 10
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.05)
    log = (root / "bf16" / "log.txt").read_text()
    for name in ("res3.block0.shortcut", "res4.block0.shortcut", "res5.block0.shortcut"):
        assert f"backbone.{name}: a kernel of torch" in log
    assert log.count("'sliced'") == 3
    assert "a kernel of torch" not in (root / "fp32" / "log.txt").read_text()
    # The lean form has its own gradient of these weights, which is right.
    np.testing.assert_allclose(losses(root, "bf16", lean=True), exact, rtol=0, atol=0.05)
    assert "'sliced'" not in (root / "lean_bf16" / "log.txt").read_text()
