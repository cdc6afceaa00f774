"""The results of a run: sums over steps, means, the history of epochs and metrics.json."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, TypeVar

from nlnet.checkpoint import EpochRecord, Progress
from nlnet.clip import ManifestUse
from nlnet.files import write_atomic

METRICS = "metrics.json"
POINTS = 100  # of each training curve, per epoch
T = TypeVar("T")


class StepRecord(NamedTuple):
    """What one step adds to the sums of its epoch."""

    loss: float  # sum over the clips
    top1: float  # hits
    top5: float
    clips: float
    seconds: float
    waited: float  # seconds spent waiting for data

    def add_to(self, totals: dict[str, float]) -> None:
        """Add this step to sums over steps."""
        for name, value in self._asdict().items():
            totals[name] = totals.get(name, 0.0) + value


class Rates(NamedTuple):
    """Means over steps."""

    loss: float
    top1: float  # percent
    top5: float
    clips_per_second: float
    data_wait: float  # percent of the time


def rates(totals: Mapping[str, float]) -> Rates:
    """Compute means from the sums of at least one step; NaN if all of them were skipped."""
    clips = totals["clips"] or math.nan
    return Rates(
        loss=totals["loss"] / clips,
        top1=100 * totals["top1"] / clips,
        top5=100 * totals["top5"] / clips,
        clips_per_second=totals["clips"] / totals["seconds"],
        data_wait=100 * totals["waited"] / totals["seconds"],
    )


class StepReport(NamedTuple):
    """A finished step, as it is shown to people. Epochs and steps count from 1."""

    epoch: int
    num_epochs: int
    step: int  # of the epoch
    steps_per_epoch: int
    global_step: int
    total_steps: int
    running: Rates  # means over the epoch so far
    recent: Rates | None  # means since the last point of the curves; None if no point is due
    lr: float
    grad_norm: float
    seconds_left: float  # to the end of the run


class EpochReport(NamedTuple):
    """A finished epoch, as it is shown to people."""

    record: EpochRecord
    num_epochs: int
    is_best: bool  # its score is higher than those of all epochs before
    seconds_left: float | None  # to the end of the run; None after the last epoch


class Recorder:
    """Counts the steps and epochs of a run in its progress, and reports them.

    The time that is left follows from the pace of this process so far, evaluations included.

    Args:
        progress: is changed
        total_steps: of the run
        steps_per_epoch: of each epoch but the last, which can be shorter
    """

    def __init__(self, progress: Progress, *, total_steps: int, steps_per_epoch: int) -> None:
        self.progress = progress
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.num_epochs = -(-total_steps // steps_per_epoch)
        self.window: dict[str, float] = {}  # sums since the last point of the curves
        self.start_step = progress.global_step
        self.start = time.monotonic()

    def finish_step(self, record: StepRecord, *, lr: float, grad_norm: float) -> StepReport:
        """Count a step."""
        progress = self.progress
        progress.step += 1
        progress.global_step += 1
        record.add_to(progress.totals)
        record.add_to(self.window)
        recent = None
        if progress.step % max(self.steps_per_epoch // POINTS, 1) == 0:
            recent = rates(self.window)
            self.window.clear()
        return StepReport(
            epoch=progress.epoch + 1,
            num_epochs=self.num_epochs,
            step=progress.step,
            steps_per_epoch=self.steps_per_epoch,
            global_step=progress.global_step,
            total_steps=self.total_steps,
            running=rates(progress.totals),
            recent=recent,
            lr=lr,
            grad_norm=grad_norm,
            seconds_left=self._seconds_left(),
        )

    def finish_epoch(self, val: Mapping[str, float], main: str | None) -> EpochReport:
        """Count an epoch: add its record to the history, and update the best score.

        Args:
            val: validation metrics; empty if the epoch was not evaluated
            main: the name of the metric that selects the best epoch; None without metrics
        """
        progress, means = self.progress, rates(self.progress.totals)
        progress.epoch += 1
        record = EpochRecord(
            epoch=progress.epoch,
            global_step=progress.global_step,
            seconds=progress.totals["seconds"],
            clips_per_second=means.clips_per_second,
            data_wait=means.data_wait,
            train={"loss": means.loss, "top1": means.top1, "top5": means.top5},
            val=dict(val),
            main=main,
        )
        progress.history.append(record)
        progress.step, progress.totals = 0, {}
        score = record.score
        is_best = score is not None and _is_better(score, progress.best)
        if is_best:
            progress.best = score
        is_last = progress.global_step >= self.total_steps
        left = None if is_last else self._seconds_left()
        return EpochReport(record, self.num_epochs, is_best, left)

    def _seconds_left(self) -> float:
        done = self.progress.global_step - self.start_step
        pace = (time.monotonic() - self.start) / max(done, 1)
        return pace * (self.total_steps - self.progress.global_step)


def _is_better(score: float, best: float | None) -> bool:
    """Whether a score replaces the best one. A score that is not a number never does."""
    return math.isfinite(score) and (best is None or not score <= best)


def main_first(values: Mapping[str, T], main: str | None) -> dict[str, T]:
    """Return metrics with the main one first, and the others in their order."""
    order = sorted(values, key=lambda name: name != main)
    return {name: values[name] for name in order}


def best_record(progress: Progress) -> EpochRecord | None:
    """Return the record of the epoch that best.pt comes from: the first with the highest score."""
    evaluated = (record for record in progress.history if record.score is not None)
    return next((record for record in evaluated if record.score == progress.best), None)


def training_seconds(progress: Progress) -> float:
    """Return the time that all finished epochs spent on training steps."""
    return sum(record.seconds for record in progress.history)


def write_metrics(
    path: Path,
    progress: Progress,
    missing: Mapping[str, int],
    manifests: Mapping[str, ManifestUse] | None = None,
) -> None:
    """Write metrics.json. Its epochs count from 1.

    Args:
        path: the file to replace
        progress: of the run
        missing: per split, the number of listed videos that have no file
        manifests: per split that was read from a manifest, what is used of it
    """
    metrics: dict[str, object] = {}
    if best := best_record(progress):
        metrics |= {f"best_{name}": value for name, value in best.val.items()}
        metrics |= {"best_epoch": best.epoch, "main_metric": best.main}
    if progress.skipped:
        metrics["skipped_steps"] = progress.skipped
    unreadable = {"clips": progress.bad, "of": progress.asked, "files": progress.bad_files}
    metrics |= {"unreadable": unreadable, "missing": dict(missing)}
    if manifests:
        metrics["manifests"] = {split: use.record() for split, use in manifests.items()}
    metrics["epochs"] = [_epoch_entry(record) for record in progress.history]
    write_atomic(path, json.dumps(metrics, indent=1).encode())


def _epoch_entry(record: EpochRecord) -> dict[str, object]:
    entry = asdict(record)
    del entry["main"]  # the same for all epochs, see main_metric
    return entry


def read_best_score(path: Path) -> float:
    """Read the best score of a run, in percent, from its metrics.json.

    It is 0 without scores, and without the file, which the end of the first epoch writes.
    """
    if not path.exists():
        return 0.0
    metrics = json.loads(path.read_text())
    return float(metrics[f"best_{metrics['main_metric']}"]) if "main_metric" in metrics else 0.0
