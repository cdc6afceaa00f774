"""Diving48: JSON files of videos with the number of their class, and the parts of each class."""

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.files import files_by_stem, find_file
from nlnet.data.index.text import read_json_annotation
from nlnet.data.prepare.data_set import DataFolder, DataSet, split_of
from nlnet.errors import UserError

PATTERN = r"Diving48(_V2)?_(train|test)\.json"


def list_diving48(data: DataFolder) -> DataSet:
    """The videos of Diving48_V2_train.json and Diving48_V2_test.json.

    A class is named by its take-off, somersaults, twists and position, as in Diving48_vocab.json.
    """
    files = files_by_stem(data.videos)
    (vocabulary, *_) = data.find(r"Diving48_vocab\.json", what="Diving48_vocab.json")
    names = tuple(" ".join(parts) for parts in read_json_annotation(vocabulary))
    splits: dict[str, SplitEntries] = {}
    for path in data.find(PATTERN, what="Diving48_V2_train.json"):
        entries = []
        for number, row in enumerate(read_json_annotation(path), start=1):
            place = f"{path} entry {number}"
            try:
                video, label = str(row["vid_name"]), names[int(row["label"])]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise UserError(f"{place} has no vid_name and label of a class") from error
            found = find_file(files, (video,), set(), place)
            entries.append(Entry(place, video, (label,), found))
        splits.setdefault(split_of(path.stem) or path.stem, SplitEntries(entries))
    return DataSet(splits, names)
