"""HMDB51 and J-HMDB: one official list for each class and split; its number says the split."""

import re
from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.files import files_by_stem, find_file
from nlnet.data.index.text import text_lines
from nlnet.data.prepare.data_set import DataFolder, DataSet
from nlnet.errors import UserError

SPLITS = {"1": "train", "2": "test", "0": None}  # 0: the video is not used in this split


def list_hmdb51(data: DataFolder) -> DataSet:
    """The lists `{class}_test_split{1,2,3}.txt` of one split, with lines `name.avi 0|1|2`."""
    files = files_by_stem(data.videos)
    pattern = rf"(.+)_test_split{data.split_number}\.txt"
    splits: dict[str, list[Entry]] = {"train": [], "test": []}
    lists: dict[str, list[Path]] = {}  # class -> its list
    for path in data.find(pattern, what=f"list such as walk_test_split{data.split_number}.txt"):
        match = re.fullmatch(pattern, path.name, re.IGNORECASE)
        assert match is not None
        lists.setdefault(match[1], []).append(path)
    for name, path in ((name, path) for name, paths in lists.items() for path in paths):
        for place, line in text_lines(path):
            video, _, number = line.rpartition(" ")
            if number not in SPLITS or not video:
                raise UserError(
                    f"{place} is not `name 0`, `name 1` or `name 2`: {line!r}; correct it, or "
                    "download the lists again"
                )
            split, stem = SPLITS[number], video.strip().rsplit(".", 1)[0]
            if split is not None:
                found = find_file(files, (stem,), {name}, place, others=lists)
                splits[split].append(Entry(place, video.strip(), (name,), found))
    return DataSet(
        {split: SplitEntries(entries) for split, entries in splits.items() if entries},
        tuple(sorted(lists)),
    )
