"""Something-Something v2: JSON files of videos, and the numbers of their templates."""

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.files import files_by_stem, find_file
from nlnet.data.index.text import read_json_annotation
from nlnet.data.prepare.data_set import DataFolder, DataSet, split_of
from nlnet.errors import UserError

PATTERN = r"(something-something-v2-)?(train|validation|test)\.json"
LABELS = r"(something-something-v2-)?labels\.json"


def list_something(data: DataFolder) -> DataSet:
    """The videos of the JSON files; the class of a video is its template without brackets."""
    files = files_by_stem(data.videos)
    (labels, *_) = data.find(LABELS, what="something-something-v2-labels.json")
    numbers = read_json_annotation(labels)
    names = tuple(sorted(numbers, key=lambda name: int(numbers[name])))
    splits = {}
    for path in data.find(PATTERN, what="something-something-v2-train.json"):
        entries = []
        for number, row in enumerate(read_json_annotation(path), start=1):
            place = f"{path} entry {number}"
            if "id" not in row:
                raise UserError(f"{place} has no id; download the file again")
            template = row.get("template", "").replace("[", "").replace("]", "")
            video = str(row["id"])
            found = find_file(files, (video,), set(), place)
            entries.append(Entry(place, video, (template,) if template else (), found))
        splits[split_of(path.stem) or path.stem] = SplitEntries(entries)
    return DataSet(splits, names)
