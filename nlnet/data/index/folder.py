"""A folder of class folders: `train/<class>/<video>`."""

from collections.abc import Iterator
from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import is_video
from nlnet.errors import UserError


def is_folder(source: SplitSource) -> bool:
    """Whether a split is a folder."""
    return source.path.is_dir()


def read_folder(source: SplitSource) -> SplitEntries:
    """The videos of each class folder; the label of a video is the name of its folder.

    Raises UserError for a class folder without videos and for a video outside a class folder.
    """
    source.refuse_part()
    return SplitEntries(list(_entries(source.path)))


def _entries(folder: Path) -> Iterator[Entry]:
    for class_folder in sorted(folder.iterdir()):
        if not class_folder.is_dir():
            if is_video(class_folder):
                raise UserError(f"{class_folder} is outside a class folder; move it into one")
            continue
        if class_folder.name.startswith("."):
            continue
        files = sorted(path for path in class_folder.iterdir() if is_video(path))
        if not files:
            raise UserError(f"class folder {class_folder} has no video; fill or remove it")
        for path in files:
            yield Entry(str(class_folder), path.name, (class_folder.name,), path)
