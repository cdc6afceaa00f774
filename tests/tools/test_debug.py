"""Debug runs as commands: one batch is learned, a step is timed, and no real run is touched."""

import gzip
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.checkpoint import LAST, read_checkpoint

Tool = Callable[..., subprocess.CompletedProcess[str]]
LENGTH = "trainer.max_steps=200"  # the small runs of these tests otherwise have 6 steps


def last_step(folder: Path) -> int:
    training = read_checkpoint(folder / LAST).training
    assert training is not None
    return training.progress.global_step


def test_one_batch_is_learned_in_a_folder_of_its_own(tool: Tool, tmp_path: Path):
    done = tool("train", "+debug=overfit", LENGTH, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "learned the first batch: all 8 clips are right after" in done.stdout
    folder = tmp_path / "outputs" / "smoke_overfit" / "train"
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["smoke_overfit"]
    assert 1 < last_step(folder) < 200


@pytest.mark.slow
def test_a_batch_that_is_not_learned_is_an_error(tool: Tool, tmp_path: Path):
    words = ("+debug=overfit", "trainer.max_steps=2", "optim.lr=1e-9")
    done = tool("train", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "the first batch is not learned: " in done.stderr
    assert "of 8 clips are right after 2 steps" in done.stderr and "optim.lr" in done.stderr


def test_a_profile_has_a_trace_and_the_share_of_the_speed(tool: Tool, tmp_path: Path):
    done = tool("train", "+debug=profile", "debug.profile_steps=2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "outputs" / "smoke_profile" / "train"
    numbers = json.loads((folder / "profile.json").read_text())
    share = numbers["operations"] / numbers["seconds"] / numbers["ceiling"]
    assert numbers["mfu"] == pytest.approx(share)
    assert 0 < numbers["mfu"] < 1 and numbers["clips"] == 8
    assert f"MFU {100 * numbers['mfu']:.1f}%" in done.stdout
    (path,) = (folder / "tensorboard").glob("*.pt.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"ProfilerStep#0", "ProfilerStep#1", "load a batch"} <= names
    assert "ProfilerStep#2" not in names
    assert any(name.startswith("aten::") for name in numbers["by_operation"])
    assert not any(name.startswith("Profiler") for name in numbers["by_operation"])


@pytest.mark.slow
def test_a_short_run_trains_and_validates_and_starts_anew(tool: Tool, tmp_path: Path):
    words = ("+debug=short", "trainer.max_steps=2", "data.val_views.batch_size=2")
    for _ in range(2):
        done = tool("train", *words, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "24 videos of 2 classes to train on, 4 to validate on; 2 steps" in done.stdout
        assert "val: top1" in done.stdout and "resumes" not in done.stdout
    assert last_step(tmp_path / "outputs" / "smoke_short" / "train") == 2


@pytest.mark.slow
def test_two_ranks_learn_a_batch_and_profile_a_step(tool: Tool, tmp_path: Path):
    for words in (["+debug=overfit", LENGTH], ["+debug=profile", "dist.strategy=fsdp"]):
        done = tool("train", *words, "dist.num_procs=2", "model.norm=sync", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"memory of a rank: \d\.\d\d GB at the most", done.stdout)
    board = tmp_path / "outputs" / "smoke_profile" / "train" / "tensorboard"
    assert len(list(board.glob("*.pt.trace.json.gz"))) == 2


@pytest.mark.slow
def test_a_run_out_of_time_is_saved_and_resumes(tool: Tool, tmp_path: Path):
    """On two ranks, before the first epoch has ended; another limit is the same run."""
    words = ("dist.num_procs=2", "model.norm=sync")
    done = tool("train", *words, "trainer.max_minutes=1e-6", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the time limit of 1e-06 minutes is reached: saved last.pt after step 1" in done.stdout
    folder = tmp_path / "outputs" / "smoke" / "train"
    assert last_step(folder) == 1
    done = tool("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes from last.pt, after 1 steps" in done.stdout
    assert last_step(folder) == 6
