"""What the reader of an annotation format returns: the listed videos of a split."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nlnet.errors import UserError


class SplitSource(NamedTuple):
    """Where a split is listed."""

    path: Path  # a folder or a file
    part: str  # the rows to take, by the value of their split column; "" without a `#part`
    videos: Path  # the folder that a file refers to
    columns: tuple[str, ...] = ()  # the fields of the first line of a file
    url: str = ""  # of the folder of videos, if it is not on this machine

    def refuse_part(self) -> None:
        """Raise UserError if a part is given, for formats that have no split column."""
        if self.part:
            raise UserError(
                f"{self.path} has no split column, so #{self.part} has no meaning; remove it"
            )


@dataclass(frozen=True)
class Entry:
    """One video of a split."""

    source: str  # file and line, for error messages
    name: str  # the path or id that is listed
    labels: tuple[str, ...]  # as listed: see `SplitEntries.label_form`
    path: Path | None  # None if there is no file
    span: tuple[float, float] | None = None  # the seconds of the file; None for the whole file
    num_frames: int | None = None  # of a folder of frames, if they are listed


@dataclass(frozen=True)
class SplitEntries:
    """All videos of a split, and how to interpret their labels."""

    entries: list[Entry]
    label_form: str = "name"  # a key of nlnet.data.index.labels.LABEL_FORMS
    multi_label: bool = False  # whether a video may have several labels, or none
    remarks: tuple[str, ...] = ()  # what a user should know about the split, one line each
