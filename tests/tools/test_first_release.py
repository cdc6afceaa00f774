"""A run folder written by nlnet 0.1.0 (commit 6d26f02) loads, evaluates and resumes.

tests/fixtures/first_release/make.py made the folder: 8 training videos, a network with two
non-local blocks and two frozen stages, stopped after 3 of 6 steps.

Loading is compared bit by bit: the tensors are copied from the file. Results of arithmetic are
compared within a tolerance: the order of additions inside a convolution, and with it the rounding,
depends on the vector instructions of the processor. AdamW divides each gradient by its own size
and so enlarges the difference: after three steps it is 6e-8 with AVX2 and 1.5e-3 without AVX.
"""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nlnet.checkpoint import LAST, read_checkpoint
from tests.commands import run_python

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "first_release"
WORDS = (
    "+experiment=smoke",
    "name=first_release",
    "model.width=2",
    "data.root=videos",
    "data.test=val",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_steps=6",
    "trainer.freeze=[conv1,res2]",
    "dist.device=cpu",
)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A copy of the run folder where tools/train.py expects it; its videos are in tmp_path."""
    folder = tmp_path / "outputs" / "first_release" / "train"
    shutil.copytree(FIXTURE / "run", folder)
    shutil.copytree(FIXTURE / "videos", tmp_path / "videos")
    return folder


def tool(name: str, *words: str, cwd: Path) -> str:
    done = run_python([str(ROOT / "tools" / f"{name}.py"), *words], cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


TOLERANCE = 1e-6 if torch.backends.cpu.get_cpu_capability().startswith("AVX") else 5e-3


def expected() -> dict[str, Any]:
    return json.loads((FIXTURE / "expected.json").read_text())


def test_it_loads_bit_by_bit():
    path = FIXTURE / "run" / LAST
    line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {LAST}\n"
    assert (FIXTURE / "run" / f"{LAST}.sha256").read_text() == line
    saved = torch.load(path, weights_only=True)
    found = read_checkpoint(path)
    assert found.model.keys() == saved["model"].keys()
    assert all(torch.equal(found.model[name], value) for name, value in saved["model"].items())
    assert found.provenance.class_names == ["different", "same"]
    assert found.provenance.nlnet == "0.1.0"
    assert found.training is not None
    assert found.training.optimizer_name == "AdamW"
    assert found.training.optimizer["param_groups"] == saved["optimizer"]["param_groups"]
    progress = found.training.progress
    assert (progress.epoch, progress.step, progress.global_step) == (1, 1, 3)
    assert (progress.best, progress.asked, progress.bad) == (50.0, 12, 0)
    [record] = progress.history
    assert (record.main, record.score) == ("top1", 50.0)  # the old file does not name it
    assert list(record.val) == ["top1", "top5", "mean_class"]


def test_it_evaluates(run_folder: Path, tmp_path: Path):
    tool("eval", *WORDS, f"weights={run_folder / LAST}", cwd=tmp_path)
    with (tmp_path / "outputs" / "first_release" / "eval" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {Path(row["video"]).name: row for row in rows}
    predictions = expected()["predictions"]
    assert found.keys() == predictions.keys()
    for name, row in found.items():
        assert row["prediction"] == predictions[name]["prediction"]
        assert float(row["score"]) == pytest.approx(
            predictions[name]["score"], abs=max(TOLERANCE, 2e-5)
        )


def test_it_resumes(run_folder: Path, tmp_path: Path):
    """The new code makes the steps that the old code made after the same checkpoint."""
    before = read_checkpoint(run_folder / LAST)
    out = tool("train", *WORDS, cwd=tmp_path)
    assert f"resumes from {LAST}, after 3 steps" in out
    after = read_checkpoint(run_folder / LAST)
    assert after.training is not None and after.training.progress.global_step == 6
    for name, values in expected()["resumed"].items():
        moved = (after.model[name] - before.model[name]).abs().max()
        assert moved > 1e-4 or name == "backbone.conv1.weight", "the weights did not change"
        torch.testing.assert_close(after.model[name], torch.tensor(values), rtol=0, atol=TOLERANCE)
    records = json.loads((run_folder / "metrics.json").read_text())["epochs"]
    for found, old in zip(records, expected()["epochs"], strict=True):
        assert found["train"] == pytest.approx(old["train"], rel=max(TOLERANCE, 1e-4))
        assert found["val"].keys() == old["val"].keys()
