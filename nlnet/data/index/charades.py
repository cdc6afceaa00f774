"""The CSV files of Charades: one row for each video, with any number of actions."""

import math

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import files_by_stem, find_file
from nlnet.data.index.text import csv_rows
from nlnet.errors import UserError

COLUMNS = ("id", "actions")


def is_charades(source: SplitSource) -> bool:
    """Whether a split is a file with the columns id and actions."""
    return {*COLUMNS} <= {*source.columns}


def read_charades(source: SplitSource) -> SplitEntries:
    """The rows of a CSV; the file of a row is named `{id}` and may be in any folder.

    Labels are class codes: `c000` for the class `c000 Holding some clothes`. Raises UserError for
    an action that is not `code start end`.
    """
    source.refuse_part()
    files = files_by_stem(source.videos)
    entries = []
    for place, row in csv_rows(source.path, COLUMNS, ("id",)):
        video = row["id"].strip()
        actions = [action for action in row["actions"].split(";") if action.strip()]
        labels = tuple(_action_code(action.split(), place) for action in actions)
        entries.append(Entry(place, video, labels, find_file(files, (video,), set(), place)))
    return SplitEntries(entries, "code", multi_label=True)


def _action_code(words: list[str], source: str) -> str:
    """The class code of an action; its times are checked, but not used."""
    if len(words) != 3:
        action = " ".join(words)
        raise UserError(f"{source} has the action {action!r}, not `code start end`; correct it")
    code, *times = words
    try:
        is_bad = not all(math.isfinite(float(time)) for time in times)
    except ValueError:
        is_bad = True
    if is_bad:
        raise UserError(
            f"{source} has a time that is not a number, {' '.join(words)!r}; correct it"
        )
    return code
