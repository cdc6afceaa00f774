"""When checkpoints are written, and how many are kept."""

import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

from nlnet.checkpoint import LAST, last_paths, read_checkpoint, saved_paths
from nlnet.trainer.saving import Saver
from nlnet.trainer.state import resume


def steps_of(folder: Path) -> list[int]:
    """The steps of the checkpoints of a folder, the newest first."""
    found = [read_checkpoint(path).training for path in saved_paths(folder)]
    return [each.progress.global_step for each in found if each is not None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that tests set: `clock[0]` is the time in seconds."""
    now = [0.0]
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now[0])
        yield now


def test_a_checkpoint_is_late_when_its_time_has_passed(
    tiny: ModuleType, tmp_path: Path, clock: list[float]
):
    saver = Saver(tmp_path, tiny.make_settings(save_every_minutes=0.5))
    late = []
    for seconds in (0, 29, 30, 31, 60, 61):
        clock[0] = float(seconds)
        late.append(saver.is_late)
        if seconds == 31:
            saver.save_last(tiny.make_state())
    assert late == [False, False, True, True, False, True]
    never = Saver(tmp_path, tiny.make_settings())
    clock[0] = 1e9
    assert not never.is_late


def test_a_run_saves_by_the_clock(tiny: ModuleType, tmp_path: Path, clock: list[float]):
    """Steps last 40 s here. Checkpoints follow steps 2 and 4, and the epoch twice."""
    settings = {"epochs": 1, "save_every_minutes": 1.0, "keep_checkpoints": 9}

    def tick(step: int) -> None:
        clock[0] = 40.0 * (step + 1)

    loader = tiny.loader_at
    tiny.loader_at = lambda accumulate, at_step: loader(accumulate, tick)
    try:
        tiny.train(tmp_path, {"settings": settings})
    finally:
        tiny.loader_at = loader
    assert steps_of(tmp_path) == [4, 4, 4, 2]


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_newest_checkpoints_are_kept(tiny: ModuleType, tmp_path: Path, keep: int):
    settings = {"save_every_steps": 1, "keep_checkpoints": keep}
    tiny.train(tmp_path, {"settings": settings})
    assert steps_of(tmp_path) == [8, 8, 8, 7][:keep]
    assert saved_paths(tmp_path) == last_paths(tmp_path, keep)


def test_the_length_of_a_run_of_checkpoints_follows_the_setting(tiny: ModuleType, tmp_path: Path):
    """A surplus file that cannot be removed stays, and the run goes on."""
    state = tiny.make_state()
    for step, keep in enumerate((4, 4, 4, 4, 2)):
        state.progress.global_step = step
        Saver(tmp_path, tiny.make_settings(keep_checkpoints=keep)).save_last(state)
    assert steps_of(tmp_path) == [4, 3]
    assert not list(tmp_path.glob("last.prev2*"))
    (tmp_path / "last.prev7.pt").mkdir()  # unlink refuses a folder
    Saver(tmp_path, tiny.make_settings()).save_last(state)
    assert (tmp_path / LAST).exists() and (tmp_path / "last.prev7.pt").exists()


def test_a_clock_that_is_set_back_changes_nothing(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each look at the time of day is an hour before the one before it."""
    times = count(start=2_000_000_000, step=-3600)
    whole = tiny.train(tmp_path / "whole", {"settings": {"save_every_minutes": 1e-6}})
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    for step in (2, 5):
        with pytest.raises(SystemExit):
            tiny.train(
                tmp_path / "parts",
                {"at": {str(step): "SIGTERM"}, "settings": {"save_every_minutes": 1e-6}},
            )
        (tmp_path / "parts" / "done0").unlink()
        for path in saved_paths(tmp_path / "parts"):
            # The newest file gets the oldest time stamp: names decide, not times.
            stamp = 1e9 - 100 * saved_paths(tmp_path / "parts").index(path)
            os.utime(path, (stamp, -stamp + 2e9))
    parts = tiny.train(tmp_path / "parts", {"settings": {"save_every_minutes": 1e-6}})
    for name, value in whole.model.state_dict().items():
        assert value.equal(parts.model.state_dict()[name])
    fresh = tiny.make_state()
    assert resume(fresh, tmp_path / "parts") == ["resumes from last.pt, after 8 steps"]
