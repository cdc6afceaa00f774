import os
import random
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nlnet.checkpoint import (
    LAST,
    PREVIOUS,
    EpochRecord,
    last_paths,
    saved_paths,
    write_checkpoint,
)
from nlnet.errors import UserError
from nlnet.files import DamagedFile
from nlnet.trainer.state import TrainState, resume

LIMIT = 4096  # bytes, less than a checkpoint of the tiny run


def trained(tiny: ModuleType, optimizer: str = "sgd", seed: int = 0, global_step: int = 5):
    """A state with momentum, progress and history."""
    state = tiny.make_state(optimizer, seed=seed)
    state.model(tiny.clips(seed, [0, 1, 2]).video).sum().backward()
    state.optimizer.step()
    state.progress.epoch, state.progress.step = 1, 1
    state.progress.global_step, state.progress.best = global_step, 0.25
    state.progress.totals = {"loss": 1.5, "clips": 12.0}
    state.progress.history = [
        EpochRecord(1, 4, 2.0, 6.0, 0.0, {"loss": 1.0}, {"top1": 0.25}, "top1")
    ]
    return state


def assert_same(one: TrainState, other: TrainState) -> None:
    for (name, a), b in zip(
        one.model.state_dict().items(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    assert one.progress == other.progress
    a, b = one.optimizer.state_dict(), other.optimizer.state_dict()
    assert a["param_groups"] == b["param_groups"]
    torch.testing.assert_close(a["state"], b["state"], rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_loading_restores_what_was_saved(tiny: ModuleType, tmp_path: Path, optimizer: str):
    state = trained(tiny, optimizer)
    write_checkpoint(tmp_path / LAST, state.checkpoint())
    loaded = tiny.make_state(optimizer, seed=1)
    loaded.load(tmp_path / LAST)
    assert_same(loaded, state)


def test_names_in_a_checkpoint_have_no_prefix(tiny: ModuleType, tmp_path: Path):
    state = trained(tiny)
    write_checkpoint(tmp_path / LAST, state.checkpoint())
    saved = torch.load(tmp_path / LAST, weights_only=True)
    assert list(saved["model"]) == list(state.model.state_dict())
    assert not any(name.startswith(("module.", "_orig_mod.")) for name in saved["model"])


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_every_flipped_bit_is_refused(tiny: ModuleType, tmp_path: Path):
    path = tmp_path / LAST
    write_checkpoint(path, trained(tiny).checkpoint())
    rng = random.Random(0)
    fresh = tiny.make_state(seed=1)
    untouched = {name: value.clone() for name, value in fresh.model.state_dict().items()}
    for _ in range(100):
        bit = rng.randrange(8 * path.stat().st_size)
        flip(path, bit)
        with pytest.raises(DamagedFile, match=r"last\.pt: is damaged.*remove it"):
            fresh.load(path)
        flip(path, bit)
    for name, value in fresh.model.state_dict().items():
        assert torch.equal(value, untouched[name])
    fresh.load(path)


def test_every_truncated_file_is_refused(tiny: ModuleType, tmp_path: Path):
    path = tmp_path / LAST
    write_checkpoint(path, trained(tiny).checkpoint())
    data = path.read_bytes()
    rng = random.Random(1)
    fresh = tiny.make_state(seed=1)
    for size in (0, 1, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))):
        path.write_bytes(data[:size])
        with pytest.raises(DamagedFile, match=r"last\.pt: is damaged.*remove it"):
            fresh.load(path)


def test_the_previous_checkpoint_replaces_a_damaged_one(tiny: ModuleType, tmp_path: Path):
    before, after = trained(tiny, global_step=5), trained(tiny, seed=2, global_step=6)
    write_checkpoint(tmp_path / LAST, before.checkpoint(), [tmp_path / PREVIOUS])
    write_checkpoint(tmp_path / LAST, after.checkpoint(), [tmp_path / PREVIOUS])
    flip(tmp_path / LAST, 5000)
    fresh = tiny.make_state(seed=1)
    refused, resumed = resume(fresh, tmp_path)
    assert "last.pt: is damaged" in refused and refused.endswith("it is now last.pt.damaged")
    assert resumed == "resumes from last.prev.pt, after 5 steps"
    assert_same(fresh, before)
    write_checkpoint(
        tmp_path / LAST, after.checkpoint(), [tmp_path / PREVIOUS]
    )  # does not move over the intact one
    for path, expected in ((tmp_path / LAST, after), (tmp_path / PREVIOUS, before)):
        fresh.load(path)
        assert_same(fresh, expected)


def test_the_oldest_of_many_checkpoints_is_used_if_all_others_are_damaged(
    tiny: ModuleType, tmp_path: Path
):
    path, *older = paths = last_paths(tmp_path, 4)
    assert [each.name for each in paths] == [
        *("last.pt", "last.prev.pt", "last.prev2.pt", "last.prev3.pt")
    ]
    for step in range(1, 6):
        write_checkpoint(path, trained(tiny, global_step=step).checkpoint(), older)
    assert saved_paths(tmp_path) == paths
    for each in paths[:3]:
        flip(each, 5000)
    fresh = tiny.make_state(seed=1)
    assert resume(fresh, tmp_path)[-1] == "resumes from last.prev3.pt, after 2 steps"
    assert saved_paths(tmp_path) == paths[3:]


def test_a_run_with_damaged_checkpoints_only_does_not_start(tiny: ModuleType, tmp_path: Path):
    for _ in range(2):
        write_checkpoint(tmp_path / LAST, trained(tiny).checkpoint(), [tmp_path / PREVIOUS])
    flip(tmp_path / LAST, 100)
    flip(tmp_path / PREVIOUS, 100)
    with pytest.raises(UserError, match=r"last\.pt: is damaged"):
        resume(tiny.make_state(), tmp_path)


def test_a_folder_without_checkpoints_is_a_new_run(tiny: ModuleType, tmp_path: Path):
    state = tiny.make_state()
    assert resume(state, tmp_path) == []
    assert state.progress.global_step == 0


def test_another_network_is_refused_with_its_first_names(tiny: ModuleType, tmp_path: Path):
    write_checkpoint(tmp_path / LAST, trained(tiny).checkpoint())
    other = tiny.make_state(norm=False, seed=1)
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    missing, unknown = r"backbone\.conv1\.bias .* missing", r"backbone\.norm1\.weight .* unknown"
    with pytest.raises(UserError, match=f"another network: {missing}.*{unknown}"):
        other.load(tmp_path / LAST)
    for name, value in other.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_weights_without_the_state_of_a_run_are_refused(tiny: ModuleType, tmp_path: Path):
    state = trained(tiny)
    write_checkpoint(tmp_path / LAST, replace(state.checkpoint(), training=None))
    with pytest.raises(UserError, match=r"last\.pt: holds weights without .* weights=PATH"):
        tiny.make_state().load(tmp_path / LAST)


def test_a_head_of_another_size_is_refused(tiny: ModuleType, tmp_path: Path):
    write_checkpoint(tmp_path / LAST, trained(tiny).checkpoint())
    other = tiny.make_state()
    other.model.head = torch.nn.Linear(6, 3)
    with pytest.raises(UserError, match=r"head\.weight \(of 2\) has another shape"):
        other.load(tmp_path / LAST)


def test_another_optimizer_is_refused(tiny: ModuleType, tmp_path: Path):
    write_checkpoint(tmp_path / LAST, trained(tiny).checkpoint())
    with pytest.raises(UserError, match=r"written with SGD, this run has AdamW"):
        tiny.make_state("adamw").load(tmp_path / LAST)


def test_other_parameter_groups_are_refused_without_a_change(tiny: ModuleType, tmp_path: Path):
    write_checkpoint(tmp_path / LAST, trained(tiny).checkpoint())
    other = tiny.make_state(seed=1)
    first, *rest = other.model.parameters()
    other.optimizer = torch.optim.SGD([{"params": [first]}, {"params": rest}], lr=0.1)
    before = first.clone()
    with pytest.raises(UserError, match="other parameter groups"):
        other.load(tmp_path / LAST)
    assert torch.equal(first, before)


@pytest.mark.parametrize("names", [["a", "c"], ["b", "a"], ["a", "b", "c"], ["a"]])
def test_other_classes_are_refused(tiny: ModuleType, tmp_path: Path, names: list[str]):
    """Otherwise weights of the same shapes would continue with wrong labels."""
    write_checkpoint(tmp_path / LAST, trained(tiny).checkpoint())
    other = tiny.make_state(seed=1)
    other.provenance = replace(other.provenance, class_names=names)
    with pytest.raises(UserError, match=r"last\.pt: was trained on other classes") as caught:
        resume(other, tmp_path)
    assert "\n" not in str(caught.value) and other.progress.global_step == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("num_saves", [1, 2, 3])
def test_a_save_that_is_killed_leaves_a_checkpoint(
    tiny: ModuleType, tmp_path: Path, monkeypatch, num_saves: int
):
    """Kill the save before each change of the disk in turn: the old or the new state loads."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process loses no cache
    allowed = 0
    while True:
        folder = tmp_path / str(allowed)
        folder.mkdir()
        states = [trained(tiny, seed=i, global_step=i) for i in range(num_saves + 1)]
        for state in states[:-1]:
            write_checkpoint(folder / LAST, state.checkpoint(), [folder / PREVIOUS])
        survived = save_with(states[-1], folder, allowed, monkeypatch)
        fresh = tiny.make_state(seed=9)
        resume(fresh, folder)
        assert fresh.progress.global_step in (num_saves - 1, num_saves)
        assert_same(fresh, states[fresh.progress.global_step])
        # The next save, after the restart, works and cleans up.
        write_checkpoint(folder / LAST, states[-1].checkpoint(), [folder / PREVIOUS])
        fresh.load(folder / LAST)
        assert_same(fresh, states[-1])
        assert not [*folder.glob("*.partial")]
        if survived:
            break
        allowed += 1
    assert allowed >= 8


def save_with(state: TrainState, folder: Path, allowed: int, monkeypatch) -> bool:
    """Save, and kill it instead of its next change after `allowed` changes of the disk."""
    changes = 0

    def counted(change):
        def wrapper(*args, **kwargs):
            nonlocal changes
            changes += 1
            if changes > allowed:
                raise Killed
            return change(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(os, "fsync", counted(lambda descriptor: None))
        try:
            write_checkpoint(folder / LAST, state.checkpoint(), [folder / PREVIOUS])
        except Killed:
            return False
    return True


def test_a_full_disk_leaves_the_old_file_only(tiny: ModuleType, tmp_path: Path):
    state = trained(tiny)
    write_checkpoint(tmp_path / LAST, state.checkpoint(), [tmp_path / PREVIOUS])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises(
            UserError, match=r"last\.pt: cannot be written .*free disk space"
        ) as caught:
            write_checkpoint(tmp_path / LAST, state.checkpoint(), [tmp_path / PREVIOUS])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path) in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_missing_folder_is_named(tiny: ModuleType, tmp_path: Path):
    with pytest.raises(UserError, match=r"gone/last\.pt: cannot be written \(No such file"):
        write_checkpoint(tmp_path / "gone" / LAST, trained(tiny).checkpoint())


SAVE_FOR_EVER = """
import itertools, os, signal, sys, time
import torch
from pathlib import Path
from nlnet.checkpoint import LAST, PREVIOUS, Provenance, write_checkpoint
from nlnet.trainer.state import TrainState, resume

folder, trials = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)

def state_of(step):
    model = torch.nn.Linear(300, 300)
    torch.nn.init.constant_(model.weight, step)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = TrainState(model, optimizer, Provenance())
    state.progress.global_step = step
    return state

begin = time.monotonic()
for step in range(1, 6):
    write_checkpoint(folder / LAST, state_of(step).checkpoint(), [folder / PREVIOUS])
span = (time.monotonic() - begin) / 5  # seconds of a save
for trial in range(trials):
    child = os.fork()
    if child == 0:
        for step in itertools.count(step + 1):
            write_checkpoint(folder / LAST, state_of(step).checkpoint(), [folder / PREVIOUS])
    time.sleep(4 * span * (trial % 50) / 50)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = state_of(0)
    lines = resume(found, folder)
    assert not any("damaged" in line for line in lines), lines
    assert (found.model.weight == found.progress.global_step).all()
    assert found.progress.global_step >= step
    step = found.progress.global_step
assert step > trials // 10, step
"""


@pytest.mark.slow
def test_sigkill_during_saves(memory_folder: Path):
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(memory_folder), "100"]
    subprocess.run(command, check=True)
