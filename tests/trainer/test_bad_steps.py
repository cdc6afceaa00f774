"""Steps that are skipped, in runs that are stopped and on several ranks."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nlnet.checkpoint import LAST, read_checkpoint
from nlnet.errors import UserError
from nlnet.runs.skipped import SKIPPED, read_skipped
from nlnet.trainer.preemption import Preempted

RunRanks = Callable[..., int]
FAULTS = {"2": "loss", "5": "gradient"}  # steps from 0, of 12 in 3 epochs
SETTINGS = {"epochs": 3, "clip_grad_norm": 1.0}


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final.pt", weights_only=True)


@pytest.mark.parametrize("stop", ["2", "3", "5", "6"])
def test_a_run_with_skipped_steps_resumes_to_the_same_bits(
    tiny: ModuleType, tmp_path: Path, stop: str
):
    options = {"settings": SETTINGS, "faults": FAULTS, "state": {"optimizer": "adamw"}}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = tiny.train(tmp_path / "whole", options)
    stopped = options | {"at": {stop: "SIGTERM"}}
    with pytest.raises(Preempted):
        tiny.train(tmp_path / "parts", stopped)
    parts = tiny.train(tmp_path / "parts", stopped)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    assert whole.progress.skipped == parts.progress.skipped == 2
    lists = [json.loads((tmp_path / name / SKIPPED).read_text()) for name in ("whole", "parts")]
    assert lists[0] == lists[1]
    assert [(row["step"], row["epoch"]) for row in lists[0]] == [(3, 1), (6, 2)]
    losses = [record.train["loss"] for record in whole.progress.history]
    assert losses == [record.train["loss"] for record in parts.progress.history]
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert metrics["skipped_steps"] == 2
    log = (tmp_path / "whole" / "log.txt").read_text()
    assert "epoch 1, step 3: the loss (nan) or its gradient (nan) is not finite: skipped" in log


def test_the_list_holds_the_clips_of_the_step(tiny: ModuleType, tmp_path: Path):
    tiny.train(tmp_path, {"faults": {"5": "loss"}, "settings": {"accumulate": 3}})
    step = read_skipped(tmp_path)[6]
    rows = [tiny.GLOBAL_BATCH + i for i in range(tiny.GLOBAL_BATCH)]
    batch = tiny.clips(2, rows)
    digests = [
        hashlib.sha256(video.numpy().tobytes() + label.numpy().tobytes()).hexdigest()
        for video, label in zip(batch.video, batch.label, strict=True)
    ]
    assert step.files == [str(row) for row in rows]
    assert step.sha256 == hashlib.sha256("".join(digests).encode()).hexdigest()


def test_bad_steps_in_a_row_stop_the_run_at_the_last_good_checkpoint(
    tiny: ModuleType, tmp_path: Path
):
    faults = {str(step): "loss" for step in (3, 5, 6, 7, 8)}
    settings = {"epochs": 3, "save_every_steps": 1, "max_bad_steps": 3}
    with pytest.raises(UserError, match=r"epoch 2, step 4: .* 3 steps in a row.*last\.pt;.*optim"):
        tiny.train(tmp_path, {"faults": faults, "settings": settings})
    saved = read_checkpoint(tmp_path / LAST)
    assert saved.training.progress.global_step == 5
    assert all(value.isfinite().all() for value in saved.model.values())
    assert len(read_skipped(tmp_path)) == 4


def test_an_epoch_without_a_good_step_stops_the_run(tiny: ModuleType, tmp_path: Path):
    faults = {str(step): "loss" for step in range(4)}
    with pytest.raises(UserError, match=r"all steps of the epoch; no checkpoint was written"):
        tiny.train(tmp_path, {"faults": faults})


def test_a_stop_does_not_reset_the_count_of_bad_steps(tiny: ModuleType, tmp_path: Path):
    options = {
        "faults": {str(step): "loss" for step in (5, 6, 7)},
        "settings": {"epochs": 3, "max_bad_steps": 3},
        "at": {"6": "SIGTERM"},
    }
    with pytest.raises(Preempted):
        tiny.train(tmp_path, options)
    with pytest.raises(UserError, match=r"epoch 2, step 4: .* 3 steps in a row"):
        tiny.train(tmp_path, options)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_fault_of_one_rank_is_skipped_by_all(run_ranks: RunRanks, tmp_path: Path, fault: str):
    options = {"faults": {"5": fault}, "on_rank": 1, "settings": {"epochs": 3}}
    assert run_ranks(tmp_path / "whole", 2, **options) == 0
    assert list(read_skipped(tmp_path / "whole")) == [6]
    assert len(read_skipped(tmp_path / "whole")[6].files) == 12  # of both ranks
    stopped = options | {"at": {"6": "SIGTERM"}}
    assert run_ranks(tmp_path / "parts", 2, **stopped) == 143
    assert run_ranks(tmp_path / "parts", 2, **stopped) == 0
    whole, parts = final_weights(tmp_path / "whole"), final_weights(tmp_path / "parts")
    assert all(value.isfinite().all() for value in whole.values())
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
