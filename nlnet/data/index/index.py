"""The videos of a split and their labels, read from what is there and checked once.

A split is a folder of class folders (`train/<class>/<video>`), a CSV of Kinetics or Charades, or a
`path label` list; which of them is seen from the thing itself. The videos of a Charades CSV bear
any number of labels each, and so do those of a list that has `path label,label` in any line. A
comma behind a label, `path label,`, says the same of a list where each video happens to bear one.
"""

import csv
import difflib
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlnet.errors import UserError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts"}
    | {".webm", ".wmv"}
)
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
CHARADES_COLUMNS = ("id", "actions")
# Spaces, tabs and commas part a path from its labels. Commas part the labels as well, so there may
# be several only where a suffix of VIDEO_SUFFIXES shows the end of the path.
PATH_AND_LABEL = re.compile(r"(?P<path>.*[^ \t,])[ \t,]+(?P<labels>[^ \t,]+)")
PATH_AND_LABELS = re.compile(
    rf"(?P<path>.*(?i:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))}))[ \t,]+"
    r"(?P<labels>[^ \t,]+([ \t]*,[ \t]*[^ \t,]+)*,?)"
)
# How a label names its class, unless by the class's name: (class, its name) -> label.
SPELLINGS: dict[str, Callable[[int, str], str]] = {
    "name": lambda number, name: name,
    "number": lambda number, name: str(number),
    "code": lambda number, name: name.partition(" ")[0],  # Charades: `c000 Holding some clothes`
}


class VideoIndex:
    """Paths and labels of N videos, and the K class names that the labels count.

    `labels` is (N,) int64, or (N, K) float32 with 1 at each label where there may be several.

    Paths lie in one block of bytes, so that forked workers share it: one Python object per path
    would be copied into each worker as its reference count is touched. `missing` names the listed
    videos that have no file.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        labels: Sequence[int] | np.ndarray,
        class_names: tuple[str, ...],
        missing: tuple[str, ...] = (),
    ) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self.class_names = class_names
        self.missing = missing
        self.labels = np.asarray(labels)
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, i: int) -> Path:
        """The file of video i, counted from 0."""
        start = self._ends[i - 1] if i else 0
        return Path(os.fsdecode(self._bytes[start : self._ends[i]].tobytes()))


@dataclass(frozen=True)
class _Entry:
    """One video as its split lists it."""

    source: str  # file and line, for messages
    name: str  # the path or id as it is listed
    labels: tuple[str, ...]  # class names, or what SPELLINGS say
    path: Path | None  # None where there is no file


@dataclass(frozen=True)
class _Split:
    """All videos of a split and how their labels are to be understood."""

    entries: list[_Entry]
    spelling: str = "name"  # of SPELLINGS
    several: bool = False  # whether a video may bear several labels, or none


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
    listed = _read_split(path, part, root / videos)
    entries = listed.entries
    if not entries:
        raise UserError(f"{path} lists no video; correct data.root or the name of the split")
    if class_names is None:
        class_names = _class_names(path, listed)
    labels = _label_numbers(listed, class_names)
    missing = [entry for entry in entries if entry.path is None]
    if missing and not allow_missing:
        first = "; ".join(f"{entry.name} ({entry.source})" for entry in missing[:3])
        raise UserError(
            f"{len(missing)} of the {len(entries)} videos of {split} have no file below "
            f"{root / videos}, first {first}; add them, or leave them out: data.allow_missing=true"
        )
    paths = [entry.path for entry in entries if entry.path]
    if not paths:
        raise UserError(f"none of the videos of {root / split} has a file; correct data.videos")
    numbers = [each for each, entry in zip(labels, entries, strict=True) if entry.path]
    names = tuple(entry.name for entry in missing)
    if listed.several:
        return VideoIndex(paths, _indicators(numbers, len(class_names)), class_names, names)
    return VideoIndex(paths, [number for (number,) in numbers], class_names, names)


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


def _read_split(path: Path, part: str, videos: Path) -> _Split:
    if path.is_dir() and not part:
        return _Split(list(_folder_entries(path)))
    if not path.exists():
        raise UserError(f"{path} does not exist; correct data.root or the name of the split")
    if path.is_file() and not videos.is_dir():
        raise UserError(f"{videos} is not a folder; correct data.videos")
    columns = _columns(path) if path.is_file() else []
    if "youtube_id" in columns:
        return _Split(list(_kinetics_entries(path, part, videos)))
    if part:
        raise UserError(f"{path} has no split column, so #{part} means nothing; leave it out")
    if {*CHARADES_COLUMNS} <= {*columns}:
        return _Split(list(_charades_entries(path, videos)), "code", several=True)
    return _read_list(path, videos)


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
            yield _Entry(str(class_folder), path.name, (class_folder.name,), path)


def _columns(path: Path) -> list[str]:
    return next(csv.reader(_read_text(path).splitlines()[:1]), [])


def _rows(
    path: Path, columns: Sequence[str], filled: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row of a CSV that has these columns with the words that name it; checked to be whole."""
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    absent = [column for column in columns if column not in (reader.fieldnames or ())]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}; add it")
    try:
        for row in reader:
            source = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{source} has not as many fields as the header; correct it")
            if not all(row[column].strip() for column in filled):
                raise UserError(f"{source} has an empty {' or '.join(filled)}; fill or remove it")
            yield source, row
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({error}); mend it") from error


def _kinetics_entries(path: Path, part: str, videos: Path) -> Iterator[_Entry]:
    rows = list(_rows(path, KINETICS_COLUMNS, ("label", "youtube_id")))
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
        yield _Entry(source, video, (label,), found)


def _charades_entries(path: Path, videos: Path) -> Iterator[_Entry]:
    files = _files_by_stem(videos)
    for source, row in _rows(path, CHARADES_COLUMNS, ("id",)):
        video = row["id"].strip()
        actions = [action for action in row["actions"].split(";") if action.strip()]
        labels = tuple(_action_label(action.split(), source) for action in actions)
        yield _Entry(source, video, labels, _find_file(files, (video,), set(), source))


def _action_label(words: list[str], source: str) -> str:
    """The class code of an action; its times are checked and not needed."""
    if len(words) != 3:
        action = " ".join(words)
        raise UserError(f"{source} has the action {action!r}, not `code start end`; correct it")
    code, *times = words
    try:
        is_bad = not all(math.isfinite(float(time)) for time in times)
    except ValueError:
        is_bad = True
    if is_bad:
        raise UserError(f"{source} has a time that is no number, {' '.join(words)!r}; correct it")
    return code


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


def _read_list(path: Path, videos: Path) -> _Split:
    entries, several = [], False
    for line, text in enumerate(_read_text(path).splitlines(), start=1):
        words = text.strip()
        if not words:
            continue
        source = f"{path} line {line}"
        match = PATH_AND_LABELS.fullmatch(words) or PATH_AND_LABEL.fullmatch(words)
        if match is None:
            raise UserError(f"{source} is not `path label`: {words!r}; add the label")
        several |= "," in match["labels"]
        labels = tuple(label for label in re.split(r"[ \t,]+", match["labels"]) if label)
        file = videos / match["path"]
        entries.append(_Entry(source, match["path"], labels, file if file.is_file() else None))
    return _Split(entries, "number" if _are_counted(entries) else "name", several)


def _are_counted(entries: list[_Entry]) -> bool:
    """Whether the labels of a list are whole numbers; raises UserError where only some are."""
    labels = [(label, entry) for entry in entries for label in entry.labels]
    named = [(label, entry) for label, entry in labels if not label.isdecimal()]
    if 0 < len(named) < len(labels):
        label, odd = named[0]
        raise UserError(
            f"{odd.source} has the label {label!r} where others are whole numbers; "
            "use one kind in all lines"
        )
    return not named


def _class_names(path: Path, split: _Split) -> tuple[str, ...]:
    labels = {label for entry in split.entries for label in entry.labels}
    if not labels:
        raise UserError(f"{path}: no video has a label; name the classes with data.classes=FILE")
    if split.spelling != "number":
        return tuple(sorted(labels))
    if "0" not in labels:
        raise UserError(f"{path}: no video has label 0; count the labels from 0")
    return tuple(str(number) for number in range(max(int(label) for label in labels) + 1))


def _label_numbers(split: _Split, class_names: tuple[str, ...]) -> list[list[int]]:
    """The classes of each video, as indices into `class_names`."""
    spell = SPELLINGS[split.spelling]
    numbers = {spell(i, name): i for i, name in enumerate(class_names)}
    numbers |= {name: i for i, name in enumerate(class_names)}
    for entry in split.entries:
        for label in entry.labels:
            if label not in numbers:
                near = difflib.get_close_matches(label, class_names, n=1)
                advice = f"did you mean {near[0]!r}?" if near else "correct it, or data.classes"
                raise UserError(
                    f"{entry.source} has the label {label!r}, "
                    f"which is none of the {len(class_names)} classes; {advice}"
                )
    return [[numbers[label] for label in entry.labels] for entry in split.entries]


def _indicators(numbers: list[list[int]], num_classes: int) -> np.ndarray:
    """(N, K) float32: 1 at each of the labels of a video."""
    indicators = np.zeros((len(numbers), num_classes), dtype=np.float32)
    for row, each in zip(indicators, numbers, strict=True):
        row[each] = 1
    return indicators
