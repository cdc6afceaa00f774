"""The videos of a split and their labels, read from what is there and checked once.

A split is a folder of class folders (`train/<class>/<video>`), a Kinetics CSV, or a `path label`
list; which of them is seen from the thing itself.
"""

import csv
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlnet.errors import UserError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts"}
    | {".webm", ".wmv"}
)
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
PATH_AND_LABEL = re.compile(r"(?P<path>.*[^ \t,])[ \t,]+(?P<label>[^ \t,]+)")


class VideoIndex:
    """Paths and labels of N videos, and the K class names that the labels count.

    Paths lie in one block of bytes, so that forked workers share it: one Python object per path
    would be copied into each worker as its reference count is touched. `missing` names the listed
    videos that have no file.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        labels: Iterable[int],
        class_names: tuple[str, ...],
        missing: tuple[str, ...] = (),
    ) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self.class_names = class_names
        self.missing = missing
        self.labels = np.fromiter(labels, dtype=np.int64)  # (N,)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, i: int) -> Path:
        """The file of video i, counted from 0."""
        start = self._ends[i - 1] if i else 0
        return Path(os.fsdecode(self._bytes[start : self._ends[i]].tobytes()))

    def label(self, i: int) -> int:
        """The class of video i: an index into `class_names`."""
        return int(self.labels[i])


@dataclass(frozen=True)
class _Entry:
    """One video as its split lists it."""

    source: str  # file and line, for messages
    name: str  # the path or id as it is listed
    label: str  # a class name, or a whole number in a list
    path: Path | None  # None where there is no file


def read_index(
    root: Path,
    split: str,
    *,
    videos: str = ".",
    class_names: tuple[str, ...] | None = None,
    allow_missing: bool = False,
) -> VideoIndex:
    """The index of a split below `root`.

    `split` names a folder or a file; `file.csv#val` takes the rows of a Kinetics CSV whose split
    column says val. `videos` is the folder, below `root`, that files refer to. Without
    `class_names` they are the sorted labels of the split (for whole numbers: "0" to the largest).
    Raises UserError, naming file and line, for whatever is not as it should be.
    """
    source, _, part = split.partition("#")
    path = root / source
    entries, num_counted = _read_split(path, part, root / videos)
    if not entries:
        raise UserError(f"{path} lists no video; correct data.root or the name of the split")
    if class_names is None:
        class_names = _class_names(path, entries, num_counted)
    labels = _label_numbers(entries, class_names, counted=num_counted is not None)
    missing = [entry for entry in entries if entry.path is None]
    if missing and not allow_missing:
        first = "; ".join(f"{entry.name} ({entry.source})" for entry in missing[:3])
        raise UserError(
            f"{len(missing)} of the {len(entries)} videos of {split} have no file below "
            f"{root / videos}, first {first}; add them, or leave them out: data.allow_missing=true"
        )
    found = [(e.path, label) for e, label in zip(entries, labels, strict=True) if e.path]
    if not found:
        raise UserError(f"none of the videos of {root / split} has a file; correct data.videos")
    paths, numbers = zip(*found, strict=True)
    return VideoIndex(paths, numbers, class_names, tuple(entry.name for entry in missing))


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a file of one class name a line, in its order."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct data.classes")
    names: dict[str, int] = {}
    for line, text in enumerate(_read_text(path).splitlines(), start=1):
        name = text.strip()
        if not name:
            raise UserError(f"{path} line {line} is empty; give one class name a line")
        if name in names:
            raise UserError(f"{path} line {line} repeats {name!r} of line {names[name]}")
        names[name] = line
    if not names:
        raise UserError(f"{path} is empty; give one class name a line")
    return tuple(names)


def _read_split(path: Path, part: str, videos: Path) -> tuple[list[_Entry], int | None]:
    """The entries of a split, and how many classes its labels count if they are whole numbers."""
    if path.is_dir() and not part:
        return list(_folder_entries(path)), None
    if not path.exists():
        raise UserError(f"{path} does not exist; correct data.root or the name of the split")
    if path.is_file() and not videos.is_dir():
        raise UserError(f"{videos} is not a folder; correct data.videos")
    if path.is_file() and _is_kinetics(path):
        return list(_kinetics_entries(path, part, videos)), None
    if part:
        raise UserError(f"{path} has no split column, so #{part} means nothing; leave it out")
    entries = list(_list_entries(path, videos))
    return entries, _count_classes(entries)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); convert it") from error


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _folder_entries(folder: Path) -> Iterator[_Entry]:
    for class_folder in sorted(folder.iterdir()):
        if not class_folder.is_dir():
            if _is_video(class_folder):
                raise UserError(f"{class_folder} lies outside a class folder; move it into one")
            continue
        if class_folder.name.startswith("."):
            continue
        files = sorted(path for path in class_folder.iterdir() if _is_video(path))
        if not files:
            raise UserError(f"class folder {class_folder} holds no video; fill or remove it")
        for path in files:
            yield _Entry(str(class_folder), path.name, class_folder.name, path)


def _is_kinetics(path: Path) -> bool:
    header = next(csv.reader(_read_text(path).splitlines()[:1]), [])
    return "youtube_id" in header


def _kinetics_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row with the words that name it; checked to be complete."""
    reader = csv.DictReader(_read_text(path).splitlines(), strict=True)
    absent = [column for column in KINETICS_COLUMNS if column not in (reader.fieldnames or ())]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}; add it")
    try:
        for row in reader:
            source = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{source} has not as many fields as the header; correct it")
            if not row["label"].strip() or not row["youtube_id"].strip():
                raise UserError(f"{source} has an empty label or youtube_id; fill or remove it")
            yield source, row
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({error}); mend it") from error


def _kinetics_entries(path: Path, part: str, videos: Path) -> Iterator[_Entry]:
    rows = list(_kinetics_rows(path))
    if rows and part and "split" not in rows[0][1]:
        raise UserError(f"{path} has no split column, so #{part} means nothing; leave it out")
    parts = sorted({row["split"] for _, row in rows if "split" in row})
    if part and part not in parts:
        raise UserError(f"{path} has no row of split {part!r}, only {', '.join(parts)}")
    if not part and len(parts) > 1:
        choices = " or ".join(f"{path.name}#{each}" for each in parts)
        raise UserError(f"{path} holds several splits; name one: {choices}")
    files = _files_by_stem(videos)
    for source, row in rows:
        if part and row["split"] != part:
            continue
        label, video = row["label"].strip(), row["youtube_id"].strip()
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
        except ValueError as error:
            raise UserError(f"{source} has a time that is no number; correct it") from error
        hints = {label, label.replace(" ", "_"), row.get("split", "")}
        found = _find_file(files, (f"{video}_{start:06d}_{end:06d}", video), hints, source)
        yield _Entry(source, video, label, found)


def _files_by_stem(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(parent, name)
            if _is_video(path):
                files.setdefault(path.stem, []).append(path)
    return files


def _find_file(
    files: Mapping[str, list[Path]], stems: Iterable[str], hints: set[str], source: str
) -> Path | None:
    """The file of the first stem that has one; of several, the one in the most hinted folders."""
    for stem in stems:
        if stem in files:
            hits = [len(hints.intersection(path.parts)) for path in files[stem]]
            best = [p for p, hit in zip(files[stem], hits, strict=True) if hit == max(hits)]
            if len(best) > 1:
                raise UserError(f"{source} fits two files, {best[0]} and {best[1]}; remove one")
            return best[0]
    return None


def _list_entries(path: Path, videos: Path) -> Iterator[_Entry]:
    for line, text in enumerate(_read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        source = f"{path} line {line}"
        match = PATH_AND_LABEL.fullmatch(text.strip())
        if match is None:
            raise UserError(f"{source} is not `path label`: {text.strip()!r}; add the label")
        file = videos / match["path"]
        yield _Entry(source, match["path"], match["label"], file if file.is_file() else None)


def _count_classes(entries: list[_Entry]) -> int | None:
    """How many classes the whole numbers of a list count; None where its labels are names."""
    numbers = [entry.label.isdecimal() for entry in entries]
    if not any(numbers):
        return None
    if not all(numbers):
        odd = entries[numbers.index(False)]
        raise UserError(
            f"{odd.source} has the label {odd.label!r} where other lines have whole numbers; "
            "use one kind in all lines"
        )
    return max(int(entry.label) for entry in entries) + 1


def _class_names(path: Path, entries: list[_Entry], num_counted: int | None) -> tuple[str, ...]:
    labels = {entry.label for entry in entries}
    if num_counted is None:
        return tuple(sorted(labels))
    if "0" not in labels:
        raise UserError(f"{path}: no video has label 0; count the labels from 0")
    return tuple(str(number) for number in range(num_counted))


def _label_numbers(
    entries: list[_Entry], class_names: tuple[str, ...], *, counted: bool
) -> list[int]:
    numbers = {name: i for i, name in enumerate(class_names)}
    if counted:
        numbers = {str(i): i for i in range(len(class_names))} | numbers
    for entry in entries:
        if entry.label not in numbers:
            near = difflib.get_close_matches(entry.label, class_names, n=1)
            advice = f"did you mean {near[0]!r}?" if near else "correct it, or data.classes"
            raise UserError(
                f"{entry.source} has the label {entry.label!r}, "
                f"which is none of the {len(class_names)} classes; {advice}"
            )
    return [numbers[entry.label] for entry in entries]
