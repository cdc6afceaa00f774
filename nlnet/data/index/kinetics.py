"""The CSV files of Kinetics: one row for each clip of a YouTube video."""

from collections.abc import Mapping
from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import files_by_stem, find_file, nfc
from nlnet.data.index.text import csv_rows
from nlnet.errors import UserError

COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def is_kinetics(source: SplitSource) -> bool:
    """Whether a split is a file with the column youtube_id."""
    return "youtube_id" in source.columns


def read_kinetics(source: SplitSource) -> SplitEntries:
    """The rows of a CSV whose split column has the value `source.part`; all rows without a part.

    Raises UserError for a part that no row has, and for a CSV of several parts of which none is
    chosen.
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
    entries = [
        kinetics_entry(place, row, files) for place, row in rows if not part or row["split"] == part
    ]
    whole = sum(entry.span is not None for entry in entries)
    remark = (
        f"{path}: the times of {whole} of {len(entries)} rows are not used, because their files "
        "are named {id}, not {id}_{start}_{end}; if the files are longer than the clips, make a "
        "manifest, which uses the times: tools/prepare.py kinetics400"
    )
    return SplitEntries(entries, remarks=(remark,) if whole else ())


def kinetics_entry(place: str, row: Mapping[str, str], files: Mapping[str, list[Path]]) -> Entry:
    """The video of a row; a row without a label column has no label.

    The file of a row is named `{id}_{start}_{end}`, with times in seconds of six digits, or `{id}`.
    Only in the second case, the entry has a span. The file may be in any folder; if there are
    several, folders named after the label or the split are preferred.
    """
    label, video = nfc(row.get("label", "").strip()), row["youtube_id"].strip()
    try:
        times = float(row["time_start"]), float(row["time_end"])
        start, end = map(int, times)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{place} has a time that is not a number; correct it") from error
    hints = {label, label.replace(" ", "_"), row.get("split", "")}
    found = find_file(files, (f"{video}_{start:06d}_{end:06d}", video), hints, place)
    is_whole = found is not None and nfc(found.stem) == nfc(video)
    labels = (label,) if label else ()
    return Entry(place, video, labels, found, times if is_whole else None)
