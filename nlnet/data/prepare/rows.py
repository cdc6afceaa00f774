"""The rows of a manifest: what the annotations list, joined with the facts of the files."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.files import nfc
from nlnet.data.index.labels import LABEL_FORMS, class_numbers
from nlnet.data.index.manifest import OK, ManifestRow, VideoFacts
from nlnet.data.prepare.data_set import OPTIONS, DataSet
from nlnet.data.prepare.status import CUT_SHORT, MISSING
from nlnet.errors import UserError

UNLABELED = "without label"
BAD_NAME = "name not UTF-8"
NO_FRAME = "without frames"  # the times of the row are outside the file


def make_rows(
    data: DataSet, class_names: tuple[str, ...], videos: Path, facts: Mapping[Path, VideoFacts]
) -> list[ManifestRow]:
    """One row for each listed video, split by split.

    Raises UserError, with the row of the annotations, for a label that is none of the classes.
    """
    rows = []
    for split, listed in data.splits.items():
        class_numbers(listed, class_names, OPTIONS)  # refuses labels that are no class
        if not data.multi_label:
            _refuse_several(listed)
        label_of = LABEL_FORMS[listed.label_form]
        numbers = {nfc(label_of(i, name)): i for i, name in enumerate(class_names)}
        numbers |= {nfc(name): i for i, name in enumerate(class_names)}
        for entry in listed.entries:
            labels = tuple(numbers[nfc(x)] for x in entry.labels if nfc(x) in numbers)
            row = _row(entry, split, labels, videos, facts)
            if row.facts.status == OK and not labels and not data.multi_label:
                row = replace(row, facts=replace(row.facts, status=UNLABELED))
            rows.append(row)
    return rows


def _row(
    entry: Entry,
    split: str,
    labels: tuple[int, ...],
    videos: Path,
    facts: Mapping[Path, VideoFacts],
) -> ManifestRow:
    if entry.path is None:
        found, path = VideoFacts(MISSING, "no file has this name"), ""
    else:
        found, path = facts[entry.path], os.path.relpath(entry.path, videos)
    if path != printable(path):
        found = replace(found, status=BAD_NAME, cause="rename the file to a name in UTF-8")
    start, end = 0, found.num_frames
    if entry.span is not None and found.rate:
        start = min(max(math.floor(entry.span[0] * found.rate + 0.5), 0), end)
        end = min(max(math.floor(entry.span[1] * found.rate + 0.5), start), end)
        if found.status == OK and start == end:
            cause = f"{entry.span[0]:g} to {entry.span[1]:g} s are outside its {found.duration:g} s"
            found = replace(found, status=NO_FRAME, cause=cause)
    if entry.num_frames and found.status == OK:
        end = min(entry.num_frames, end)
        if end < entry.num_frames:
            cause = f"has {end} frames, but its list says {entry.num_frames}"
            found = replace(found, status=CUT_SHORT, cause=cause)
    return ManifestRow(
        path=printable(path),
        split=split,
        name=printable(entry.name),
        source=printable(entry.source),
        labels=labels,
        start_frame=start,
        end_frame=end,
        facts=found,
    )


def printable(text: str) -> str:
    """A text without the bytes of a name that is not UTF-8; these are escaped."""
    return os.fsencode(text).decode("utf-8", errors="backslashreplace")


def _refuse_several(listed: SplitEntries) -> None:
    for entry in listed.entries:
        if len(entry.labels) > 1:
            raise UserError(f"{entry.source} has several labels; other rows have one")
