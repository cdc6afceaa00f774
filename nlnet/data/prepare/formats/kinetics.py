"""Kinetics-400, -600 and -700: CSV files of clips, videos anywhere below the folder."""

from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.files import files_by_stem
from nlnet.data.index.kinetics import kinetics_entry
from nlnet.data.index.text import csv_columns, csv_rows
from nlnet.data.prepare.data_set import (
    SPLIT_NAMES,
    DataFolder,
    DataSet,
    sorted_labels,
    split_of,
)
from nlnet.errors import UserError

COLUMNS = ("youtube_id", "time_start", "time_end")


def list_kinetics(data: DataFolder) -> DataSet:
    """The rows of the CSV files; a file without labels (an official test list) has none.

    Files named after a split are preferred to files that hold several. The classes are those of
    all rows, also of rows whose video is missing.
    """
    files = files_by_stem(data.videos)
    splits: dict[str, list[Entry]] = {}
    for path in _annotations(data):
        of_file = split_of(path.stem) or "all"
        for place, row in csv_rows(path, COLUMNS, ("youtube_id",)):
            split = row.get("split", "").strip() or of_file
            split = SPLIT_NAMES.get(split.lower(), split)
            splits.setdefault(split, []).append(kinetics_entry(place, row, files))
    return DataSet(
        {split: SplitEntries(entries) for split, entries in splits.items()},
        sorted_labels(splits),
    )


def _annotations(data: DataFolder) -> list[Path]:
    """The CSV files with the columns of Kinetics."""
    what = f"CSV file with the columns {', '.join(COLUMNS)}"
    found = [
        path for path in data.find(r".*\.csv", what=what) if {*COLUMNS} <= {*csv_columns(path)}
    ]
    if not found:
        raise UserError(f"{data.root} has no {what}; give it with --annotations FILE ...")
    if data.annotations:
        return found
    top = [path for path in found if path.parent == found[0].parent]
    return [path for path in top if split_of(path.stem)] or top
