import itertools
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from nlnet.checkpoint import Progress, to_checkpoint
from nlnet.runs.record import (
    POINTS,
    Rates,
    Recorder,
    StepRecord,
    best_record,
    rates,
    read_best_score,
    training_seconds,
    write_metrics,
)

STEP = StepRecord(24.0, 6.0, 9.0, 12.0, seconds=0.5, waited=0.125)


def run(scores: list[float | None], steps_per_epoch: int = 4) -> Progress:
    """Record a run whose epochs have these scores; None is an epoch without validation."""
    progress = Progress()
    total_steps = len(scores) * steps_per_epoch
    recorder = Recorder(progress, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    for score in scores:
        for _ in range(steps_per_epoch):
            recorder.finish_step(STEP, lr=0.1, grad_norm=2.5)
        if score is None:
            recorder.finish_epoch({}, None)
        else:  # the main metric is not the first one
            recorder.finish_epoch({"top5": 90.0, "top1": score}, "top1")
    return progress


@pytest.mark.parametrize(
    ("scores", "best"),
    [([math.nan, 25.0], 25.0), ([50.0, math.nan, 25.0], 50.0), ([math.nan], None)],
)
def test_a_score_that_is_nan_is_never_the_best(scores: list[float | None], best: float | None):
    assert run(scores).best == best


def test_means_of_steps_of_unequal_size():
    """The loss and the hits are means over clips, the speed and the wait are means over time."""
    totals: dict[str, float] = {}
    StepRecord(24.0, 6.0, 9.0, 12.0, seconds=0.5, waited=0.125).add_to(totals)
    StepRecord(2.0, 1.0, 4.0, 4.0, seconds=1.5, waited=0.375).add_to(totals)
    assert rates(totals) == Rates(26 / 16, 100 * 7 / 16, 100 * 13 / 16, 16 / 2.0, 25.0)


def test_a_step_is_counted_from_1():
    progress = Progress()
    recorder = Recorder(progress, total_steps=6, steps_per_epoch=4)
    found = []
    for step in range(6):
        report = recorder.finish_step(STEP, lr=0.1 / (step + 1), grad_norm=2.5)
        found.append((report.epoch, report.step, report.global_step))
        assert (report.num_epochs, report.steps_per_epoch, report.total_steps) == (2, 4, 6)
        assert (report.lr, report.grad_norm) == (0.1 / (step + 1), 2.5)
        if step == 3:
            recorder.finish_epoch({}, None)
    assert found == [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4), (2, 1, 5), (2, 2, 6)]
    assert (progress.epoch, progress.step, progress.global_step) == (1, 2, 6)


@pytest.mark.parametrize("steps", [1, 7, 100, 250, 1000])
def test_the_points_of_a_curve_cover_all_steps(steps: int):
    """Each point is the mean since the point before, and an epoch has about POINTS of them."""
    recorder = Recorder(Progress(), total_steps=steps, steps_per_epoch=steps)
    points, since = [], []
    for step in range(steps):
        loss = float(step)
        since.append(loss)
        record = STEP._replace(loss=loss, clips=1.0)
        report = recorder.finish_step(record, lr=0.1, grad_norm=1.0)
        if report.recent is not None:
            assert report.recent.loss == pytest.approx(sum(since) / len(since))
            points.append(step)
            since.clear()
    assert min(steps, POINTS) <= len(points) < 2 * POINTS
    assert len(since) < max(steps // POINTS, 1)


def test_the_time_left_follows_from_the_pace_of_this_process(monkeypatch):
    clock = iter(itertools.count(0.0, 3.0))  # each call returns 3 seconds more
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    progress = Progress(global_step=40, step=40)  # by an earlier process
    recorder = Recorder(progress, total_steps=80, steps_per_epoch=80)
    for step in range(1, 41):
        report = recorder.finish_step(STEP, lr=0.1, grad_norm=1.0)
        assert report.seconds_left == pytest.approx(3 * (40 - step))


def test_an_epoch_is_one_record():
    progress = run([50.0, None])
    first, second = progress.history
    assert asdict(first) == {
        "epoch": 1,
        "global_step": 4,
        "seconds": 2.0,
        "clips_per_second": 24.0,
        "data_wait": 25.0,
        "train": {"loss": 2.0, "top1": 50.0, "top5": 75.0},
        "val": {"top5": 90.0, "top1": 50.0},
        "main": "top1",
    }
    assert (second.epoch, second.val, second.score) == (2, {}, None)
    assert (progress.epoch, progress.step, progress.totals) == (2, 0, {})
    assert training_seconds(progress) == 4.0


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([50.0], 1),
        ([25.0, 50.0, 50.0, 37.5], 2),
        ([None, 0.0, None], 2),
        ([None, 30.0, None, 20.0], 2),
        ([None, None], None),
    ],
)
def test_the_best_epoch_is_the_first_with_the_highest_score(
    tmp_path: Path, scores: list[float | None], best: int | None
):
    """The number of the best epoch is counted as the epochs of the file are."""
    progress, path = run(scores), tmp_path / "metrics.json"
    write_metrics(path, progress, {"train": 3})
    metrics = json.loads(path.read_text())
    assert [entry["epoch"] for entry in metrics["epochs"]] == list(range(1, len(scores) + 1))
    assert metrics["missing"] == {"train": 3}
    record = best_record(progress)
    if best is None:
        assert record is None
        assert not [name for name in metrics if name.startswith("best_")]
        assert read_best_score(path) == 0.0
        return
    assert record is not None and record.epoch == best == metrics["best_epoch"]
    (entry,) = [entry for entry in metrics["epochs"] if entry["epoch"] == best]
    assert entry["val"] == {"top5": metrics["best_top5"], "top1": metrics["best_top1"]}
    assert metrics["main_metric"] == "top1"
    assert read_best_score(path) == scores[best - 1] == progress.best


def test_only_a_higher_score_is_the_best():
    progress = Progress()
    recorder = Recorder(progress, total_steps=4, steps_per_epoch=1)
    found = []
    for score in (25.0, 50.0, 50.0, 37.5):
        recorder.finish_step(STEP, lr=0.1, grad_norm=1.0)
        found.append(recorder.finish_epoch({"top1": score}, "top1"))
    assert [report.is_best for report in found] == [True, True, False, False]
    assert [report.seconds_left is None for report in found] == [False, False, False, True]


def test_a_score_that_is_not_a_number_is_never_the_best():
    progress = Progress()
    recorder = Recorder(progress, total_steps=5, steps_per_epoch=1)
    found = []
    for score in (math.nan, 25.0, math.nan, 50.0, 37.5):
        recorder.finish_step(STEP, lr=0.1, grad_norm=1.0)
        found.append(recorder.finish_epoch({"top1": score}, "top1").is_best)
    assert found == [False, True, False, True, False]
    assert progress.best == 50.0
    record = best_record(progress)
    assert record is not None and record.epoch == 4


def test_a_resumed_run_of_an_old_version_counts_its_epochs_from_1(tmp_path: Path):
    """Before, a checkpoint counted epochs from 0 and did not name the main metric."""
    clock = {"seconds": 2.0, "clips_per_second": 24.0, "data_wait": 25.0}
    history = [
        {"epoch": i, "global_step": 4 * (i + 1), **clock, "train": {}, "val": {"top1": top1}}
        for i, top1 in enumerate([25.0, 50.0])
    ]
    old = {"epoch": 2, "global_step": 8, "best": 50.0, "history": history}
    parts = {"optimizer_name": "SGD", "optimizer": {}, "scaler": {}}
    checkpoint = to_checkpoint({"model": {}, "progress": old, **parts}, Path("last.pt"))
    progress = checkpoint.training.progress
    recorder = Recorder(progress, total_steps=12, steps_per_epoch=4)
    for _ in range(4):
        recorder.finish_step(STEP, lr=0.1, grad_norm=1.0)
    recorder.finish_epoch({"top1": 37.5}, "top1")
    write_metrics(tmp_path / "metrics.json", progress, {})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["epoch"] for entry in metrics["epochs"]] == [1, 2, 3]
    assert (metrics["best_epoch"], metrics["best_top1"]) == (2, 50.0)
