"""The list of training steps that a run skipped, skipped.json in its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nlnet.errors import UserError
from nlnet.files import digest, write_text

SKIPPED = "skipped.json"


class SkippedStep(NamedTuple):
    """A step whose loss or gradient was not finite, and its clips."""

    step: int  # of the run, from 1
    epoch: int  # from 1
    loss: str  # mean over the clips; text, because JSON has no NaN
    grad_norm: str
    sha256: str  # of the clips, see `clips_digest`
    files: list[str]  # one for each clip


def clips_digest(digests: Sequence[str]) -> str:
    """Return one SHA-256 for the digests of the clips of a step, in their order."""
    return digest("".join(digests).encode())


def read_skipped(folder: Path) -> dict[int, SkippedStep]:
    """The skipped steps of a run folder by number. Raises UserError for another file."""
    path = folder / SKIPPED
    if not path.exists():
        return {}
    try:
        rows = [SkippedStep(**row) for row in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is not a list of skipped steps; remove it") from error
    return {row.step: row for row in rows}


def add_skipped(folder: Path, step: SkippedStep) -> None:
    """Add a step to the list of a run folder; a step that a resumed run repeats is there once."""
    steps = read_skipped(folder) | {step.step: step}
    rows = [steps[number]._asdict() for number in sorted(steps)]
    write_text(folder / SKIPPED, json.dumps(rows, indent=1) + "\n")
