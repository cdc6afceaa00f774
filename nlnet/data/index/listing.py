"""A list with one `path label` a line.

Spaces, tabs, commas or semicolons separate a path from its labels; a field may be quoted. Labels
are class names, which may contain spaces, or whole numbers from 0. Commas also separate the labels
of a video that has several, `path label,label`. A list with a comma between or after the labels of
any line is a multi-label list: `path label,` marks a list in which each video happens to have one
label. The first line may be a header, as in `path,label`.

A list of folders of frames has the number of frames before the labels, `folder 120 label`.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import VIDEO_SUFFIXES, NamedFiles, is_frame_folder, nfc
from nlnet.data.index.text import read_text
from nlnet.errors import UserError

_SUFFIX = f"(?i:{'|'.join(map(re.escape, sorted(VIDEO_SUFFIXES)))})"
# A path may contain spaces, commas and semicolons. A video suffix marks its end, and a quoted path
# ends with its quotes. A path without a suffix ends at the first semicolon or tab; if there is
# none, its label is the last word.
FORMS = [
    re.compile(r'"(?P<path>[^"]+)"[ \t,;]+(?P<labels>.+)'),
    re.compile(rf"(?P<path>.*{_SUFFIX})(?P<separator>[ \t]*[ \t,;][ \t]*)(?P<labels>.+)"),
    re.compile(r"(?P<path>[^;\t]+?)[ ]*[;\t][ ]*(?P<labels>[^;\t]+)"),
    re.compile(r"(?P<path>.*[^ \t,])[ \t,]+(?P<labels>[^ \t,]+)"),
]
COUNT = re.compile(r"[ \t,;]+(?P<count>\d+)(?=[ \t,;]+[^ \t,;])")
PATH_COLUMNS = frozenset(
    {"path", "file", "filename", "file_name", "file_path", "filepath", "video", "video_path"}
    | {"video_name", "video_id", "vid_name", "name", "clip", "clip_path"}
)
COUNT_COLUMNS = frozenset({"frames", "num_frames", "total_frames", "n_frames", "frame_count"})
LABEL_COLUMNS = frozenset(
    {"label", "labels", "class", "class_name", "category", "action", "target"}
)
# Official lists that look like `path label`, but are not.
OFFICIAL = {
    "hmdb51": re.compile(r".+_test_split\d\.txt"),  # the number is the split
    "ucf101": re.compile(r"(train|test)list\d+\.txt"),  # numbers from 1, or no label
}


def is_listing(source: SplitSource) -> bool:
    """True: every file that has no other format is read as a list."""
    return True


def read_listing(source: SplitSource) -> SplitEntries:
    """The videos of a list; empty lines are skipped.

    Raises UserError for a line without a label, for names mixed with numbers, and for the official
    lists of UCF101 and HMDB51, whose numbers have another meaning.
    """
    source.refuse_part()
    for name, pattern in OFFICIAL.items():
        if pattern.fullmatch(source.path.name):
            raise UserError(
                f"{source.path} is an official list of {name}, whose numbers are not classes from "
                f"0; make a manifest: tools/prepare.py {name} --root {source.videos}"
            )
    files = NamedFiles(source.videos)
    entries, multi_label = [], False
    for row in _rows(source):
        labels, has_comma = _split_labels(row.labels)
        multi_label |= has_comma
        found = files.find(row.name, row.place)
        entries.append(Entry(row.place, row.name, labels, found, num_frames=row.num_frames))
    if not _labels_are_numbers(entries):
        return SplitEntries(entries, "name", multi_label)
    numbered = [replace(e, labels=tuple(str(int(label)) for label in e.labels)) for e in entries]
    return SplitEntries(numbered, "number", multi_label)


def header_columns(text: str) -> list[str] | None:
    """The columns of a first line that names a path column and a label column; else None."""
    for separator in ",;\t ":
        columns = [field.strip(' "').lower() for field in text.split(separator)]
        if PATH_COLUMNS & set(columns) and LABEL_COLUMNS & set(columns):
            return columns
    return None


class _Row(NamedTuple):
    """What a line says."""

    place: str  # file and line
    name: str
    labels: str
    num_frames: int | None = None


def _rows(source: SplitSource) -> Iterator[_Row]:
    """The lines of a list; the first may be a header."""
    lines = read_text(source.path).splitlines()
    columns = header_columns(lines[0]) if lines else None
    if columns is not None and len(columns) > 2:
        yield from _rows_by_column(source.path, lines, columns)
        return
    has_counts = _has_counts(source.videos, lines)
    for number, line in enumerate(lines, start=1):
        words = line.strip()
        if not words or (number == 1 and columns is not None):
            continue
        place = f"{source.path} line {number}"
        row = _counted_row(place, words, source.videos) if has_counts else _plain_row(place, words)
        if re.fullmatch(r"\d+([ \t]+\d+)+", row.labels):
            raise UserError(
                f"{place} has several numbers after the path, {row.labels!r}; separate the labels "
                "of a video with commas, `path 0,1`, and remove other numbers"
            )
        yield row


def _plain_row(place: str, words: str) -> _Row:
    """A line `path label`."""
    match = next((m for m in (form.fullmatch(words) for form in FORMS) if m), None)
    if match is None or not match["labels"].strip(' \t,"'):
        raise UserError(f"{place} is not `path label`: {words!r}; add the label")
    return _Row(place, match["path"].strip(), match["labels"])


def _counted_row(place: str, words: str, videos: Path) -> _Row:
    """A line `folder frames label`; of several numbers, the one after a folder that exists."""
    forms = list(_counted_forms(words))
    if not forms:
        return _plain_row(place, words)
    name, count, labels = next((f for f in forms if (videos / f[0]).is_dir()), forms[-1])
    return _Row(place, name, labels, int(count))


def _has_counts(videos: Path, lines: Sequence[str]) -> bool:
    """Whether a list is one of folders of frames, by its first line that names such a folder."""
    return any(
        is_frame_folder(videos / name) for line in lines for name, *_ in _counted_forms(line)
    )


def _counted_forms(line: str) -> Iterator[tuple[str, str, str]]:
    """Folder, count and labels of a line, for each number that may be the count."""
    for match in COUNT.finditer(line):
        name = line[: match.start()].strip(' \t,;"')
        if name and Path(name).suffix.lower() not in VIDEO_SUFFIXES:
            yield name, match["count"], line[match.end() :].strip(" \t,;")


def _rows_by_column(path: Path, lines: list[str], columns: list[str]) -> Iterator[_Row]:
    """The rows of a table with more columns than path and label."""
    separator = next(s for s in ",;\t " if len(lines[0].split(s)) == len(columns))
    at, label, count = (
        next((i for i, name in enumerate(columns) if name in names), None)
        for names in (PATH_COLUMNS, LABEL_COLUMNS, COUNT_COLUMNS)
    )
    assert at is not None and label is not None  # see header_columns
    for number, fields in enumerate(csv.reader(lines, delimiter=separator), start=1):
        if number == 1 or not fields:
            continue
        place = f"{path} line {number}"
        if len(fields) != len(columns) or not fields[label].strip():
            raise UserError(
                f"{place} does not have as many fields as the header, or no label; correct it"
            )
        frames = None if count is None else fields[count].strip()
        num_frames = int(frames) if frames and frames.isdecimal() else None
        yield _Row(place, fields[at].strip(), f'"{fields[label].strip()}"', num_frames)


def _split_labels(text: str) -> tuple[tuple[str, ...], bool]:
    """The labels of a line, and whether a comma separates them; quotes keep a name together."""
    parts = text.split(",")
    if re.fullmatch(r'"[^"]*"', text) and not re.fullmatch(r'"[\d, ]*"', text):
        parts = [text]
    labels = (nfc(part.strip(' \t"')) for part in parts)
    return tuple(label for label in labels if label), len(parts) > 1


def _labels_are_numbers(entries: list[Entry]) -> bool:
    """Whether all labels are whole numbers; raises UserError if only some are."""
    labels = [(label, entry) for entry in entries for label in entry.labels]
    names = [(label, entry) for label, entry in labels if not label.isdecimal()]
    if 0 < len(names) < len(labels):
        label, entry = names[0]
        raise UserError(
            f"{entry.source} has the label {label!r}, but other labels are whole numbers; "
            "use names or numbers in all lines"
        )
    return not names
