"""What changed between the stop of a run and its resumption is noticed."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nlnet.checkpoint import LAST, read_checkpoint, write_checkpoint
from tests.tools.test_train import assert_equal

Tool = Callable[..., subprocess.CompletedProcess[str]]
ACCEPT = "trainer.accept_changes=true"


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """The folder of a run of two epochs, three steps each, in the working folder of the test."""
    target = tmp_path / "outputs" / "smoke" / "train"
    return Path(shutil.copytree(trained, target, ignore=shutil.ignore_patterns("tensorboard")))


def refused(tool: Tool, cwd: Path, *words: str) -> str:
    done = tool("train", "trainer.save_every_steps=1", *words, cwd=cwd)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    return done.stderr


@pytest.mark.slow
def test_changed_videos_are_refused_or_accepted(
    folder: Path, tool: Tool, copy_of_videos: Path, tmp_path: Path
):
    """A third of the videos is removed, one is replaced: an epoch has 2 steps, no longer 3."""
    train = sorted((copy_of_videos / "train" / "same").iterdir())
    for video in train[:8]:
        video.unlink()
    shutil.copy(next((copy_of_videos / "test" / "same").iterdir()), train[8])
    root = f"data.root={copy_of_videos}"
    line = refused(tool, tmp_path, root)
    names = ", ".join(f"train/same/{video.name}" for video in train[:3])
    assert f"train: 8 videos removed ({names}, ...); train: 1 video replaced by another" in line
    assert ACCEPT in line and "name=NAME" in line

    done = tool("train", "trainer.save_every_steps=1", root, ACCEPT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accepted change of the data: train: 8 videos removed" in done.stdout
    assert "an epoch has 2 steps, no longer 3: goes on after step 0 of epoch 3" in done.stdout
    training = read_checkpoint(folder / LAST).training
    assert training is not None and training.data is not None
    assert (training.progress.global_step, training.progress.epoch) == (6, 3)
    assert training.data.splits["train"].videos == 16


@pytest.mark.slow
def test_another_batch_size_is_refused_or_accepted(folder: Path, tool: Tool, tmp_path: Path):
    words = ("data.batch_size=4", "trainer.max_steps=14")
    line = refused(tool, tmp_path, *words)
    assert "data.batch_size 8 -> 4" in line and ACCEPT in line
    done = tool("train", "trainer.save_every_steps=1", *words, ACCEPT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accepted change of the configuration: data.batch_size 8 -> 4" in done.stdout
    assert "an epoch has 6 steps, no longer 3: goes on after step 0 of epoch 3" in done.stdout
    training = read_checkpoint(folder / LAST).training
    assert training is not None and training.progress.global_step == 14


@pytest.mark.slow
def test_a_renamed_class_is_refused_or_accepted(
    folder: Path, tool: Tool, copy_of_videos: Path, tmp_path: Path
):
    for split in ("train", "val", "test"):
        (copy_of_videos / split / "same").rename(copy_of_videos / split / "similar")
    root = f"data.root={copy_of_videos}"
    assert re.search(r"1 differ, the first 'same' -> 'similar'", refused(tool, tmp_path, root))
    done = tool("train", "trainer.save_every_steps=1", root, ACCEPT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accepted change of the data: train: 12 videos removed" in done.stdout


@pytest.mark.slow
def test_a_checkpoint_without_facts_about_its_data_is_resumed(
    folder: Path, trained: Path, tool: Tool, tmp_path: Path
):
    """Older versions did not write them."""
    saved = read_checkpoint(folder / LAST)
    assert saved.training is not None and saved.training.data is not None
    write_checkpoint(folder / LAST, replace(saved, training=replace(saved.training, data=None)))
    done = tool("train", "trainer.save_every_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes from last.pt, after 6 steps" in done.stdout
    assert_equal(folder, trained)
