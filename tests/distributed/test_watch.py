"""Which rank is missing, from what the ranks write. tests/tools/test_lost_ranks.py kills some."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nlnet.distributed import watch as watch_module
from nlnet.distributed.rank_state import StateFile, read_states
from nlnet.distributed.watch import WaitLimits, Watch
from nlnet.errors import TransientError, UsageError


@pytest.fixture
def own(monkeypatch, tmp_path: Path) -> Watch:
    """The watch of rank 0 of two."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(watch_module, "SILENCE", 0.01)
    return Watch(tmp_path, WaitLimits(remedy="raise the limit"))


def test_without_ranks_nothing_is_written(tmp_path: Path):
    watch = Watch(tmp_path)
    watch.start()
    watch.trains("epoch 1, step 1")
    watch.close()
    assert watch.is_idle
    assert list(tmp_path.iterdir()) == []


def test_states_are_read_as_they_were_written(tmp_path: Path):
    files = [StateFile(tmp_path, rank) for rank in (0, 1)]
    for rank, file in enumerate(files):
        for names in (("a long name.mp4", "b.mp4"), ("c",)):  # the second one is shorter
            file.write(stage="decodes", place="epoch 1, step 2", files=names, count=rank)
    states = read_states(tmp_path, 3)
    assert states == {0: files[0].state, 1: files[1].state}
    assert states[1].files == ("c",) and not states[1].is_gone()


def test_the_rank_that_is_behind_is_named_with_its_files(own: Watch, tmp_path: Path):
    own.decodes("epoch 1, step 3", ["own.mp4"])
    own.trains("epoch 1, step 3")
    other = StateFile(tmp_path, 1)
    other.write(stage="decodes", place="epoch 1, step 3", files=("a.mp4", "b.mp4"), count=1)
    error = own.missing(7)
    assert isinstance(error, TransientError)
    assert "at epoch 1, step 3, where it decodes a.mp4, b.mp4, after 7 s: raise the" in str(error)


def test_a_process_that_is_gone_is_named(own: Watch, tmp_path: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    StateFile(tmp_path, 1).write(pid=ended.pid, place="epoch 2, step 1", stage="trains on")
    assert "has ended at epoch 2, step 1, where it trains on; the same" in str(own.missing(0))


def test_a_process_that_is_not_gone_at_once_is_named(
    own: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A killed process closes its connections first."""
    monkeypatch.setattr(watch_module, "SILENCE", 60.0)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"]) as ending:
        StateFile(tmp_path, 1).write(pid=ending.pid, place="epoch 2, step 1", stage="trains on")
        assert "has ended at epoch 2, step 1, where it trains on; the same" in str(own.missing(0))


def test_the_error_of_another_rank_is_repeated(own: Watch, tmp_path: Path):
    """Both ranks say the same line, which is shown once."""
    StateFile(tmp_path, 1).write(kind="UsageError", message="data.root=x is wrong")
    error = own.missing(0)
    assert isinstance(error, UsageError)
    assert str(error) == "data.root=x is wrong"


def test_a_crash_of_another_rank_is_not_explained_again(own: Watch, tmp_path: Path):
    StateFile(tmp_path, 1).write(kind="crash", message="KeyError")
    assert isinstance(own.missing(0), SystemExit)


def test_a_step_costs_little(own: Watch):
    """The two notes of a step: far below a millisecond, so that no step becomes slower."""
    begin = os.times()
    for step in range(200):
        own.decodes(f"epoch 1, step {step}", ["a/long/path/to/a/video.mp4"] * 16)
        own.trains(f"epoch 1, step {step}")
    end = os.times()
    assert end.user + end.system - begin.user - begin.system < 0.2
