"""Show a run: a progress bar or lines on the console, log.txt and TensorBoard."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from nlnet.checkpoint import BEST, Progress
from nlnet.clip import Failure, ManifestUse
from nlnet.distributed.ranks import is_main
from nlnet.files import cannot_write
from nlnet.runs.lines import bar_format, duration, epoch_line, epoch_rows, score_list, step_line
from nlnet.runs.quarantine import add_to_quarantine
from nlnet.runs.record import (
    METRICS,
    EpochReport,
    StepReport,
    best_record,
    main_first,
    training_seconds,
    write_metrics,
)
from nlnet.runs.skipped import SKIPPED, SkippedStep, add_skipped

T = TypeVar("T")

NUM_NAMES = 3  # files of a skipped step that a line names
NUM_PICTURES = 4  # clips of the first batch that TensorBoard shows
QUIET = 2.0, 30.0  # seconds between two lines if there is no progress bar: at least, at most


def progress_bar(items: Iterable[T], description: str) -> Iterable[T]:
    """Yield the items and show a progress bar if rank 0 has a terminal."""
    hidden = not is_main() or not sys.stderr.isatty()
    return tqdm(items, desc=description, disable=hidden, leave=False)


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write TensorBoard events with pictures (H, W, 3) uint8, and remove older events.

    Raises UserError if the folder cannot be written.
    """
    try:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(folder)) as board:
            for name, picture in pictures.items():
                board.add_image(name, picture, 0, dataformats="HWC")
    except OSError as error:
        raise cannot_write(folder, error) from error


@dataclass
class _Sinks:
    """Where rank 0 writes."""

    log: TextIO
    board: SummaryWriter
    bar: Any  # tqdm has no type parameter for a bar without items


class RunLogger:
    """Shows a run on rank 0. On the other ranks it does nothing.

    Args:
        out_dir: gets log.txt (new lines are appended), metrics.json and tensorboard/
        total_steps: of the run
        start_step: the step at which the run starts or resumes. TensorBoard drops the points of
            an earlier attempt after it.
        missing: per split, the number of listed videos that have no file
        manifests: per split that was read from a manifest, what is used of it

    Raises:
        UserError: out_dir cannot be written.
    """

    def __init__(
        self,
        out_dir: Path,
        *,
        total_steps: int,
        start_step: int = 0,
        missing: Mapping[str, int] | None = None,
        manifests: Mapping[str, ManifestUse] | None = None,
    ) -> None:
        self.out_dir = out_dir
        self.missing = dict(missing or {})
        self.manifests = dict(manifests or {})
        self.last_line = time.monotonic()
        self.sinks: _Sinks | None = None
        if is_main():
            try:
                out_dir.mkdir(parents=True, exist_ok=True)
                path = out_dir / "log.txt"
                log = path.open("a", 1, encoding="utf-8", errors="backslashreplace")
            except OSError as error:
                raise cannot_write(out_dir, error) from error
            bar = tqdm(
                total=total_steps,
                initial=start_step,
                bar_format="{percentage:3.0f}%|{bar}|",
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
            with suppress(OSError):  # `_log` has reported it
                self.sinks.log.close()

    def say(self, line: str) -> None:
        """Write a line to the console and to log.txt."""
        if self.sinks is not None:
            self._print(line)
            self._log(self.sinks, line)

    def _print(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)  # above the progress bar
        sys.stdout.flush()

    def _log(self, sinks: _Sinks, line: str) -> None:
        try:
            sinks.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        except OSError as error:
            raise cannot_write(Path(sinks.log.name), error) from error
        self.last_line = time.monotonic()

    def config(self, text: str) -> None:
        """Show the config of the run (YAML) in TensorBoard."""
        if self.sinks is not None:
            self.sinks.board.add_text("config", f"```yaml\n{text}\n```")

    def clips(self, video: Tensor) -> None:
        """Show the first clips (B, 3, T, H, W) uint8 in TensorBoard, frames side by side."""
        if self.sinks is not None:
            for i, clip in enumerate(video[:NUM_PICTURES]):
                strip = clip.transpose(1, 2).flatten(2)  # (3, H, T W)
                self.sinks.board.add_image(f"clips/{i}", strip, 0)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Show a picture (H, W, 3) uint8 at a step in TensorBoard."""
        if self.sinks is not None:
            self.sinks.board.add_image(name, picture, step, dataformats="HWC")

    def failures(self, failures: Iterable[Failure]) -> None:
        """Name files that could not be read."""
        for failure in failures:
            self.say(f"cannot read {failure.path}: {failure.cause}")

    def quarantine(self, stage: str, failures: Iterable[Failure]) -> None:
        """Count files that could not be read in the list of the run folder."""
        if self.sinks is not None:
            add_to_quarantine(self.out_dir, stage, failures)

    def skipped(self, step: SkippedStep, fault: str) -> None:
        """Name a step that is skipped, and the files of its clips."""
        if self.sinks is None:
            return
        add_skipped(self.out_dir, step)
        names = list(dict.fromkeys(step.files))
        more = f" and {len(names) - NUM_NAMES} more" if len(names) > NUM_NAMES else ""
        self.say(
            f"{fault}: skipped; its clips are of {', '.join(names[:NUM_NAMES])}{more}; "
            f"see {SKIPPED} and tools/replay.py {os.path.relpath(self.out_dir)} {step.step}"
        )

    def step(self, report: StepReport) -> None:
        """Show a finished step."""
        if self.sinks is None:
            return
        if report.recent is not None:
            scalars = report.recent._asdict() | {"lr": report.lr, "grad_norm": report.grad_norm}
            for name, value in scalars.items():
                self.sinks.board.add_scalar(f"train/{name}", value, report.global_step)
        bar = self.sinks.bar
        if not bar.disable:
            bar.bar_format = bar_format(report, _terminal_columns())
        bar.update()
        if self._line_is_due(report):
            line = step_line(report)
            if bar.disable:
                self.say(line)
            else:
                self._log(self.sinks, line)

    def epoch(self, report: EpochReport) -> None:
        """Show a finished epoch: short rows on a terminal, all numbers on one line elsewhere."""
        if self.sinks is None:
            return
        record, line = report.record, epoch_line(report)
        for name, value in record.val.items():
            self.sinks.board.add_scalar(f"val/{name}", value, record.global_step)
        self.sinks.board.flush()
        self._print(line if self.sinks.bar.disable else epoch_rows(report))
        self._log(self.sinks, line)

    def metrics(self, progress: Progress) -> None:
        """Write metrics.json."""
        if self.sinks is not None:
            write_metrics(self.out_dir / METRICS, progress, self.missing, self.manifests)

    def done(self, progress: Progress) -> None:
        """Show the results of a finished run."""
        if progress.bad:
            self.say(
                f"{progress.bad} of {progress.asked} clips could not be read, from"
                f" {len(progress.bad_files)} files that {METRICS} lists"
            )
        if progress.skipped:
            self.say(
                f"{progress.skipped} of {progress.global_step} steps were skipped, because the"
                f" loss or its gradient was not finite; {SKIPPED} lists them"
            )
        if best := best_record(progress):
            trained = f"done, {duration(training_seconds(progress))} of training"
            scores = (
                f"best epoch {best.epoch}: {'  '.join(score_list(main_first(best.val, best.main)))}"
            )
            self.say(f"{trained}  |  {scores}  |  {os.path.relpath(self.out_dir / BEST)}")

    def _line_is_due(self, report: StepReport) -> bool:
        shortest, longest = QUIET
        quiet = time.monotonic() - self.last_line
        is_tenth = report.step % max(report.steps_per_epoch // 10, 1) == 0
        return quiet > longest or (is_tenth and quiet > shortest)


def _terminal_columns() -> int:
    """Return the width of the terminal that shows the bar; 80 if the terminal does not tell."""
    return os.get_terminal_size(sys.stderr.fileno()).columns or 80
