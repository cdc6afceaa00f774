"""What the reader of a data set gets and returns: where its files are, and what they list."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries
from nlnet.data.index.labels import listed_class_names
from nlnet.data.setting_names import SettingNames
from nlnet.errors import UserError

OPTIONS = SettingNames(root="--root", videos="--videos", classes="--classes")
# The usual names of splits, and ours.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DEPTH = 3  # folders below the root in which annotation files are searched


@dataclass(frozen=True)
class DataFolder:
    """Where a data set is."""

    root: Path
    videos: Path  # the videos are anywhere below
    annotations: tuple[Path, ...] = ()  # the files to read; () searches below the root
    split_number: int = 1  # of data sets with several official splits

    def find(self, pattern: str, *, what: str) -> list[Path]:
        """The annotation files whose whole name matches, in any case.

        Files that the user gave are preferred; files nearer to the root come first. Raises
        UserError, which names `what` is searched, if there is none.
        """

        def matching(files: Iterable[Path]) -> list[Path]:
            return [each for each in files if re.fullmatch(pattern, each.name, re.IGNORECASE)]

        found = matching(self.annotations) or matching(_files(self.root, DEPTH))
        if not found:
            raise UserError(
                f"{self.root} has no {what}; download the annotations into it, or give their files "
                "with --annotations FILE ..."
            )
        return sorted(found, key=lambda path: (len(path.parts), path))


@dataclass(frozen=True)
class DataSet:
    """All splits of a data set, by name."""

    splits: dict[str, SplitEntries]
    class_names: tuple[str, ...] | None = None  # the official order; None: the sorted labels

    def names(self) -> tuple[str, ...]:
        """The class names; raises UserError if there are none."""
        if self.class_names is not None:
            return self.class_names
        first = next(iter(self.splits.values()))
        entries = [entry for split in self.splits.values() for entry in split.entries]
        merged = SplitEntries(entries, first.label_form, self.multi_label)
        return listed_class_names(Path(entries[0].source), merged, OPTIONS)

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels, or none."""
        return any(split.multi_label for split in self.splits.values())


def split_of(name: str) -> str | None:
    """The split that a file or folder name speaks of; None if it names none or two."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def sorted_labels(splits: dict[str, list[Entry]]) -> tuple[str, ...]:
    """The labels of all entries, of those without a file too."""
    return tuple(sorted({x for each in splits.values() for entry in each for x in entry.labels}))


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """The files in a folder and in the folders below it, down to a depth."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; correct --root")
    folders = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            folders.append(path)
        else:
            yield path
    if depth > 0:
        for each in folders:
            yield from _files(each, depth - 1)
