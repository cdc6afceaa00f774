"""Rebuild the clips of a training step of a run folder."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from nlnet.checkpoint import to_bytes
from nlnet.cli.compose import read_run
from nlnet.clip import ClipBatch
from nlnet.data.build import build_train_loader
from nlnet.data.loader import TrainLoader
from nlnet.errors import UsageError, UserError
from nlnet.files import write_atomic
from nlnet.jobs.inspect_data import sheet_rows
from nlnet.jobs.quarantine import listed_broken
from nlnet.report.contact_sheet import write_contact_sheet
from nlnet.runs.skipped import SKIPPED, clips_digest, read_skipped
from nlnet.trainer.bad_steps import step_clips


class ReplayOptions(NamedTuple):
    """What to do with the clips."""

    root: Path | None = None  # where the videos are now
    save: Path | None = None  # file of tensors
    picture: Path | None = None  # PNG


def replay(folder: Path, step: int, options: ReplayOptions, say: Callable[[str], None]) -> None:
    """Rebuild the clips of step `step` (of the run, from 1) on all ranks; say what they are.

    Raises:
        UserError: the folder or a video cannot be read, or the run skipped this step and its clips
            were others.
        UsageError: the step is below 1.
    """
    if step < 1:
        raise UsageError(f"STEP={step} must be 1 or more; the first step of a run is 1")
    run = read_run(folder / "config.yaml")
    broken = set(listed_broken(folder))
    if options.root is not None:
        broken = {str(options.root / os.path.relpath(path, run.data.root)) for path in broken}
        run.data.root = str(options.root)
    run.data.num_workers = 0
    loader = build_train_loader(
        run.data,
        seed=run.seed,
        accumulate=run.trainer.accumulate,
        rank=0,
        world_size=1,
        left_out=broken,
    )
    batches = _batches_of(loader, step - 1, run.trainer.accumulate)
    clips = step_clips(batches, lambda row: str(loader.index.path(row)))
    found = clips_digest([clip.sha256 for clip in clips])
    for i, clip in enumerate(clips):
        say(f"{i} {clip.sha256[:12]} {clip.file}")
    epoch, place = divmod(step - 1, loader.steps_per_epoch)
    say(f"step {step} (epoch {epoch + 1}, step {place + 1}): {len(clips)} clips, sha256 {found}")
    if options.save is not None:
        write_atomic(options.save, to_bytes(_tensors(batches, [clip.file for clip in clips])))
        say(f"wrote {options.save}")
    if options.picture is not None:
        rows = (row for batch in batches for row in sheet_rows(run.data.root, loader.index, batch))
        write_contact_sheet(options.picture, list(rows))
        say(f"wrote {options.picture}")
    skipped = read_skipped(folder).get(step)
    if skipped is not None and skipped.sha256 != found:
        raise UserError(
            f"{folder / SKIPPED}: the clips of step {step} were others ({skipped.sha256[:12]});"
            " the videos or the decoder have changed since"
        )
    if skipped is not None:
        say(
            f"equal to the clips that the run skipped: loss {skipped.loss}, gradient"
            f" {skipped.grad_norm}"
        )


def _batches_of(loader: TrainLoader, step: int, accumulate: int) -> list[ClipBatch]:
    epoch, place = divmod(step, loader.steps_per_epoch)
    return list(islice(loader.at(epoch, place), accumulate))


def _tensors(batches: list[ClipBatch], files: list[str]) -> dict[str, object]:
    """What torch.load(weights_only=True) reads: video (B, 3, T, H, W) uint8, label, files."""
    return {
        "video": torch.cat([batch.video for batch in batches]),
        "label": torch.cat([batch.label for batch in batches]),
        "files": files,
    }
