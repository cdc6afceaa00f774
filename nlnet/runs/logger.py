"""What a run tells people: a progress bar or lines, log.txt, TensorBoard and metrics.json."""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO, TypeVar

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from nlnet.checkpoint import BEST, EpochRecord, Progress
from nlnet.clip import Failure
from nlnet.distributed.ranks import is_main
from nlnet.errors import UserError
from nlnet.files import write_atomic

T = TypeVar("T")

METRICS = "metrics.json"
NUM_PICTURES = 4  # clips of the first batch that TensorBoard shows
POINTS = 100  # of each training curve in TensorBoard, per epoch
QUIET = 2.0, 30.0  # fewest and most seconds between two lines, where there is no progress bar


class StepRecord(NamedTuple):
    """What a step adds to the sums of its epoch."""

    loss: float  # summed over clips
    top1: float  # hits
    top5: float
    clips: float
    seconds: float
    waited: float  # seconds for data

    def add_to(self, totals: dict[str, float]) -> None:
        """Count this step in sums over steps."""
        for name, value in self._asdict().items():
            totals[name] = totals.get(name, 0.0) + value


def rates(totals: dict[str, float]) -> dict[str, float]:
    """Sums over steps as means: loss, clips_per_second, and in percent top1, top5, data_wait."""
    return {
        "loss": totals["loss"] / totals["clips"],
        "top1": 100 * totals["top1"] / totals["clips"],
        "top5": 100 * totals["top5"] / totals["clips"],
        "clips_per_second": totals["clips"] / totals["seconds"],
        "data_wait": 100 * totals["waited"] / totals["seconds"],
    }


def progress_bar(items: Iterable[T], description: str) -> Iterable[T]:
    """The items, with a bar on the terminal of rank 0."""
    hidden = not is_main() or not sys.stderr.isatty()
    return tqdm(items, desc=description, disable=hidden, leave=False)


@dataclass
class _Sinks:
    """Where rank 0 writes."""

    log: TextIO
    board: SummaryWriter
    bar: Any  # tqdm


class RunLogger:
    """Rank 0 tells how a run goes; the other ranks are silent.

    Args:
        out_dir: gets log.txt (appended to), metrics.json and tensorboard/
        start_step: where the run starts or goes on; later points of an earlier attempt disappear
        missing: of each split, how many listed videos have no file and are left out

    Raises:
        UserError: out_dir cannot be written.
    """

    def __init__(
        self,
        out_dir: Path,
        *,
        total_steps: int,
        steps_per_epoch: int,
        start_step: int = 0,
        missing: Mapping[str, int] | None = None,
    ) -> None:
        self.out_dir = out_dir
        self.missing = dict(missing or {})
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.window: dict[str, float] = {}  # sums since the last point in TensorBoard
        self.start_step = start_step
        self.start = self.last_line = time.monotonic()
        self.sinks: _Sinks | None = None
        if is_main():
            try:
                out_dir.mkdir(parents=True, exist_ok=True)
                log = (out_dir / "log.txt").open("a", encoding="utf-8", buffering=1)
            except OSError as error:
                raise UserError(
                    f"{out_dir}: cannot be written ({error.strerror}); set another output folder"
                ) from error
            bar = tqdm(
                total=total_steps,
                initial=start_step,
                smoothing=0.0,  # what is left follows from the whole run, evaluations included
                bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}",
                dynamic_ncols=True,
                leave=False,
                disable=not sys.stderr.isatty(),
            )
            board = SummaryWriter(str(out_dir / "tensorboard"), purge_step=start_step + 1)
            self.sinks = _Sinks(log, board, bar)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.sinks is not None:
            self.sinks.bar.close()
            self.sinks.board.close()
            self.sinks.log.close()

    def say(self, line: str) -> None:
        """A line on the console and in log.txt."""
        if self.sinks is not None:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
            self._log(self.sinks, line)

    def _log(self, sinks: _Sinks, line: str) -> None:
        sinks.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        self.last_line = time.monotonic()

    def config(self, text: str) -> None:
        """Show the config of the run (YAML) in TensorBoard."""
        if self.sinks is not None:
            self.sinks.board.add_text("config", f"```yaml\n{text}\n```")

    def clips(self, video: Tensor) -> None:
        """Show the first views (B, 3, T, H, W) uint8 in TensorBoard, frames side by side."""
        if self.sinks is not None:
            for i, clip in enumerate(video[:NUM_PICTURES]):
                strip = clip.transpose(1, 2).flatten(2)  # (3, H, T W)
                self.sinks.board.add_image(f"clips/{i}", strip, 0)

    def failures(self, failures: Iterable[Failure]) -> None:
        """Name files that could not be read."""
        for failure in failures:
            self.say(f"cannot read {failure.path}: {failure.cause}")

    def step(self, progress: Progress, record: StepRecord, *, lr: float, grad_norm: float) -> None:
        """Take in a step that is done; progress already counts it."""
        if self.sinks is None:
            return
        record.add_to(self.window)
        if progress.step % max(self.steps_per_epoch // POINTS, 1) == 0:
            scalars = rates(self.window) | {"lr": lr, "grad_norm": grad_norm}
            for name, value in scalars.items():
                self.sinks.board.add_scalar(f"train/{name}", value, progress.global_step)
            self.window.clear()
        bar, epoch, state = self.sinks.bar, self._name(progress.epoch), _running(progress.totals)
        bar.set_description_str(epoch, refresh=False)
        bar.set_postfix_str(state, refresh=False)
        bar.update()
        if self._line_is_due(progress.step):
            where = f"{epoch}  step {progress.step}/{self.steps_per_epoch}"
            line = f"{where}  {state}  lr {lr:.3g}  {self._left(progress)} left"
            if bar.disable:
                self.say(line)
            else:
                self._log(self.sinks, line)

    def epoch(self, progress: Progress) -> None:
        """Take in an epoch that is done: the last record of the history."""
        if self.sinks is None:
            return
        record = progress.history[-1]
        for name, value in record.val.items():
            self.sinks.board.add_scalar(f"val/{name}", value, record.global_step)
        self.sinks.board.flush()
        speed = f"{record.clips_per_second:.1f} clips/s  data wait {record.data_wait:.0f}%"
        parts = [f"{self._name(record.epoch)}  {_duration(record.seconds)}  {speed}"]
        scores = {"train": record.train, "val": record.val}
        parts += [f"{name}: {_shown(values)}" for name, values in scores.items() if values]
        if progress.global_step < self.total_steps:
            parts.append(f"{self._left(progress)} left")
        self.say("  |  ".join(parts))
        self.metrics(progress)

    def metrics(self, progress: Progress) -> None:
        """Write metrics.json: the scores of the best epoch, every epoch, what could not be read."""
        if self.sinks is None:
            return
        best = best_record(progress)
        scores = {f"best_{name}": value for name, value in best.val.items()} if best else {}
        if best:
            scores["best_epoch"] = best.epoch + 1
        bad = {"clips": progress.bad, "of": progress.asked, "files": progress.bad_files}
        metrics = scores | {"unreadable": bad, "missing": self.missing}
        metrics["epochs"] = [asdict(record) for record in progress.history]
        write_atomic(self.out_dir / METRICS, json.dumps(metrics, indent=1).encode())

    def done(self, progress: Progress) -> None:
        """Say what a finished run has come to."""
        seconds = sum(record.seconds for record in progress.history)
        where = os.path.relpath(self.out_dir / BEST)
        if progress.bad:
            self.say(
                f"{progress.bad} of {progress.asked} clips could not be read, from"
                f" {len(progress.bad_files)} files that {METRICS} lists"
            )
        if best := best_record(progress):
            scores = f"best epoch {best.epoch + 1}: {_shown(best.val)}"
            self.say(f"done, {_duration(seconds)} of training  |  {scores}  |  {where}")

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{-(-self.total_steps // self.steps_per_epoch)}"

    def _left(self, progress: Progress) -> str:
        """Time to the end of the run, evaluations included, at the pace of this process so far."""
        done = progress.global_step - self.start_step
        pace = (time.monotonic() - self.start) / max(done, 1)
        return _duration(pace * (self.total_steps - progress.global_step))

    def _line_is_due(self, step: int) -> bool:
        shortest, longest = QUIET
        quiet = time.monotonic() - self.last_line
        is_tenth = step % max(self.steps_per_epoch // 10, 1) == 0
        return quiet > longest or (is_tenth and quiet > shortest)


def _running(totals: dict[str, float]) -> str:
    means = rates(totals)
    return (
        f"loss {means['loss']:.4f}  top1 {means['top1']:.2f}%"
        f"  {means['clips_per_second']:.1f} clips/s  data wait {means['data_wait']:.0f}%"
    )


def _shown(scores: dict[str, float]) -> str:
    """A loss and percentages as people read them."""
    return "  ".join(
        f"{name} {value:.4f}" if name == "loss" else f"{name} {value:.2f}%"
        for name, value in scores.items()
    )


def best_record(progress: Progress) -> EpochRecord | None:
    """The record of the epoch that best.pt comes from: the first with the highest score."""
    for record in progress.history:
        if progress.best is not None and progress.best == record.score:
            return record
    return None


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
