"""The list of files that a run could not read, quarantine.csv in its folder."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nlnet.clip import Failure
from nlnet.errors import UserError
from nlnet.files import write_text

QUARANTINE = "quarantine.csv"
HEADER = ("path", "stage", "cause", "count")
START, TRAINING, VALIDATION = "start", "train", "val"  # stages of a run


class QuarantineRow(NamedTuple):
    """A file, and how often it was wanted and could not be read."""

    path: str
    stage: str  # START: found before the first step, and left out of the training split
    cause: str
    times: int


def read_quarantine(folder: Path) -> list[QuarantineRow]:
    """The rows of a run folder; none if it has no list. Raises UserError for another file."""
    path = folder / QUARANTINE
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    try:
        assert tuple(rows[0]) == HEADER
        return [
            QuarantineRow(_unescaped(name), stage, cause, int(times))
            for name, stage, cause, times in rows[1:]
        ]
    except (AssertionError, IndexError, ValueError) as error:
        raise UserError(f"{path}: is not a list of unreadable files; remove it") from error


def add_to_quarantine(folder: Path, stage: str, failures: Iterable[Failure]) -> None:
    """Count failures in the list of a run folder; a file keeps its first cause in each stage."""
    rows = {(row.path, row.stage): row for row in read_quarantine(folder)}
    for path, cause in failures:
        row = rows.get((path, stage), QuarantineRow(path, stage, cause, 0))
        rows[path, stage] = row._replace(times=row.times + 1)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows.values()])
    write_text(folder / QUARANTINE, text.getvalue())


def _unescaped(name: str) -> str:
    """A name with the bytes that are not UTF-8, which `write_text` escapes."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(int(f"dc{found[1]}", 16)), name)
