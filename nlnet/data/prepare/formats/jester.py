"""Jester: files of `id;class name` lines, one for each split, and a list of the classes."""

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.files import files_by_stem, find_file
from nlnet.data.index.text import text_lines
from nlnet.data.prepare.data_set import DataFolder, DataSet, split_of

PATTERN = r"(jester-v1-)?(train|validation|test)\.csv"


def list_jester(data: DataFolder) -> DataSet:
    """The videos of jester-v1-train.csv, jester-v1-validation.csv and jester-v1-test.csv.

    The test file has no labels.
    """
    files = files_by_stem(data.videos)
    (classes, *_) = data.find(r"(jester-v1-)?labels\.csv", what="jester-v1-labels.csv")
    names = tuple(line for _, line in text_lines(classes))
    splits = {}
    for path in data.find(PATTERN, what="jester-v1-train.csv"):
        entries = []
        for place, line in text_lines(path):
            video, _, label = (word.strip() for word in line.partition(";"))
            found = find_file(files, (video,), set(), place)
            entries.append(Entry(place, video, (label,) if label else (), found))
        splits[split_of(path.stem) or path.stem] = SplitEntries(entries)
    return DataSet(splits, names)
