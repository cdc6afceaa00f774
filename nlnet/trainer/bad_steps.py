"""Steps whose loss or gradient is not finite: they are skipped, and many in a row stop the run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from nlnet.checkpoint import LAST, Progress
from nlnet.clip import ClipBatch
from nlnet.distributed.ranks import gather_objects
from nlnet.errors import UserError
from nlnet.files import digest
from nlnet.runs.logger import RunLogger
from nlnet.runs.skipped import SkippedStep, clips_digest
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.step import StepSums


class _NamedClip(NamedTuple):
    file: str
    sha256: str  # of its frames and its label


def skip_step(
    progress: Progress,
    clips: Sequence[_NamedClip],
    sums: StepSums,
    grad_norm: float,
    logger: RunLogger,
) -> None:
    """Count a step that is skipped, and write its clips to the list of the run."""
    step = SkippedStep(
        step=progress.global_step + 1,
        epoch=progress.epoch + 1,
        loss=f"{sums.loss / sums.clips:.4g}",
        grad_norm=f"{grad_norm:.4g}",
        sha256=clips_digest([clip.sha256 for clip in clips]),
        files=[clip.file for clip in clips],
    )
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    logger.skipped(step, fault(progress, sums, grad_norm))


def check_bad_steps(progress: Progress, settings: LoopSettings, out_dir: Path) -> None:
    """Raise UserError if too many steps in a row were skipped, or all steps of the epoch so far.

    The second one counts at the end of an epoch only, which has no mean loss then.
    """
    row = progress.skipped_in_a_row
    whole = progress.step >= settings.steps_in(progress.epoch) and not progress.totals["clips"]
    if row < settings.max_bad_steps and not whole:
        return
    last = out_dir / LAST
    saved = (
        f"the last good checkpoint is {os.path.relpath(last)}"
        if last.exists()
        else "no checkpoint was written before them"
    )
    raise UserError(
        f"epoch {progress.epoch + 1}, step {progress.step}: the loss or its gradient was not finite"
        f" in {'all steps of the epoch' if whole else f'{row} steps in a row'}; {saved};"
        f" {settings.remedies.not_finite}, in a run with another name"
    )


def refuse_step(progress: Progress, sums: StepSums, grad_norm: float, remedy: str) -> NoReturn:
    """Raise the error of a step that is not finite, where no step may be skipped."""
    raise UserError(f"{fault(progress, sums, grad_norm)}; {remedy}")


def fault(progress: Progress, sums: StepSums, grad_norm: float) -> str:
    """Say which step is not finite. `progress` counts the steps before it."""
    return (
        f"epoch {progress.epoch + 1}, step {progress.step + 1}: the loss"
        f" ({sums.loss / sums.clips:.4g}) or its gradient ({grad_norm:.4g}) is not finite"
    )


def step_clips(
    micro_batches: Sequence[ClipBatch], name_video: Callable[[int], str]
) -> list[_NamedClip]:
    """The clips of a step on all ranks, in an order that does not depend on the number of ranks."""
    ranks = gather_objects([_named_clips(batch, name_video) for batch in micro_batches])
    return [clip for parts in zip(*ranks, strict=True) for part in parts for clip in part]


def _named_clips(batch: ClipBatch, name_video: Callable[[int], str]) -> list[_NamedClip]:
    return [
        _NamedClip(
            name_video(row),
            digest(b"".join(part.contiguous().cpu().numpy().tobytes() for part in (video, label))),
        )
        for video, label, row in zip(batch.video, batch.label, batch.video_id.tolist(), strict=True)
    ]
