"""Lists of `path label` lines, and the metadata files of Hugging Face (CSV and JSON lines)."""

import json
from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import NamedFiles, nfc
from nlnet.data.index.listing import read_listing
from nlnet.data.index.text import text_lines
from nlnet.data.prepare.data_set import SPLIT_NAMES, DataFolder, DataSet, split_of
from nlnet.errors import UserError

PATTERN = r"metadata\.(csv|jsonl)|.*(train|val|valid|validate|validation|test).*\.(txt|csv|tsv)"
METADATA = {"metadata.csv", "metadata.jsonl"}  # their paths start at their own folder


def list_lists(data: DataFolder) -> DataSet:
    """The splits of lists. A split is named by the file, its folder or the folders in its paths."""
    splits: dict[str, list[SplitEntries]] = {}
    for path in data.find(PATTERN, what="list such as train.txt or metadata.csv"):
        videos = path.parent if path.name in METADATA else data.videos
        if path.suffix == ".jsonl":
            listed = _read_json_lines(path, videos)
        else:
            listed = read_listing(SplitSource(path, "", videos))
        name = split_of(path.stem) or split_of(path.parent.name)
        for split, part in _by_split(listed, name).items():
            splits.setdefault(split, []).append(part)
    return DataSet({name: _joined(parts) for name, parts in splits.items()})


def _read_json_lines(path: Path, videos: Path) -> SplitEntries:
    """Lines `{"file_name": "a.mp4", "label": "walk"}`."""
    files, entries = NamedFiles(videos), []
    for place, line in text_lines(path):
        try:
            row = json.loads(line)
            name, label = str(row["file_name"]), nfc(str(row["label"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{place} is not a JSON object with file_name and label; correct it"
            ) from error
        entries.append(Entry(place, name, (label,), files.find(name, place)))
    numbers = all(label.isdecimal() for entry in entries for label in entry.labels)
    return SplitEntries(entries, "number" if numbers else "name")


def _by_split(listed: SplitEntries, name: str | None) -> dict[str, SplitEntries]:
    """The entries by split: `name`, or the first folder of each path, or `all`."""
    if name is not None:
        return {name: listed}
    groups: dict[str, list[Entry]] = {}
    for entry in listed.entries:
        first = Path(entry.name).parts[0].lower()
        groups.setdefault(SPLIT_NAMES.get(first, "all"), []).append(entry)
    return {
        split: SplitEntries(entries, listed.label_form, listed.multi_label, listed.remarks)
        for split, entries in groups.items()
    }


def _joined(parts: list[SplitEntries]) -> SplitEntries:
    """One split of several lists; raises UserError if names and numbers are mixed."""
    forms = {part.label_form for part in parts}
    if len(forms) > 1:
        places = " and ".join(part.entries[0].source for part in parts)
        raise UserError(f"{places}: one has names, the other numbers as labels; use one form")
    return SplitEntries(
        [entry for part in parts for entry in part.entries],
        forms.pop(),
        any(part.multi_label for part in parts),
    )
