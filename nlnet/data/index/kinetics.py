"""The CSV files of Kinetics: one row for each clip of a YouTube video."""

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import files_by_stem, find_file
from nlnet.data.index.text import csv_rows
from nlnet.errors import UserError

COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def is_kinetics(source: SplitSource) -> bool:
    """Whether a split is a file with the column youtube_id."""
    return "youtube_id" in source.columns


def read_kinetics(source: SplitSource) -> SplitEntries:
    """The rows of a CSV whose split column has the value `source.part`; all rows without a part.

    The file of a row is named `{id}_{start}_{end}`, with times in seconds of six digits, or `{id}`.
    It may be in any folder; if there are several, folders named after the label or the split are
    preferred. Raises UserError for a part that no row has, and for a CSV of several parts of which
    none is chosen.
    """
    path, part = source.path, source.part
    rows = list(csv_rows(path, COLUMNS, ("label", "youtube_id")))
    if rows and "split" not in rows[0][1]:
        source.refuse_part()
    parts = sorted({row["split"] for _, row in rows if "split" in row})
    if part and part not in parts:
        raise UserError(f"{path} has no row of split {part!r}, only {', '.join(parts)}")
    if not part and len(parts) > 1:
        choices = " or ".join(f"{path.name}#{each}" for each in parts)
        raise UserError(f"{path} has several splits; choose one: {choices}")
    files = files_by_stem(source.videos)
    entries = []
    for place, row in rows:
        if part and row["split"] != part:
            continue
        label, video = row["label"].strip(), row["youtube_id"].strip()
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
        except ValueError as error:
            raise UserError(f"{place} has a time that is not a number; correct it") from error
        hints = {label, label.replace(" ", "_"), row.get("split", "")}
        found = find_file(files, (f"{video}_{start:06d}_{end:06d}", video), hints, place)
        entries.append(Entry(place, video, (label,), found))
    return SplitEntries(entries)
