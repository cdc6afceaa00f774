"""Reading the index of a split; the annotation format is detected automatically.

To add a format, add a file beside this one and an entry of FORMATS.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nlnet.data.index.charades import is_charades, read_charades
from nlnet.data.index.entries import SplitEntries, SplitSource
from nlnet.data.index.folder import is_folder, read_folder
from nlnet.data.index.kinetics import is_kinetics, read_kinetics
from nlnet.data.index.labels import (
    class_numbers,
    indicators,
    listed_class_names,
    name_differences,
)
from nlnet.data.index.listing import is_listing, read_listing
from nlnet.data.index.manifest import is_manifest
from nlnet.data.index.manifest_split import read_manifest
from nlnet.data.index.text import csv_columns
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.setting_names import ARGUMENT_NAMES, SettingNames
from nlnet.errors import UserError


class _Format(NamedTuple):
    """An annotation format."""

    matches: Callable[[SplitSource], bool]  # whether a split has this format
    read: Callable[[SplitSource], SplitEntries]


# In this order: a split has the first format that matches.
FORMATS: dict[str, _Format] = {
    "folder": _Format(is_folder, read_folder),
    "kinetics": _Format(is_kinetics, read_kinetics),
    "charades": _Format(is_charades, read_charades),
    "listing": _Format(is_listing, read_listing),
}


def detect_format(source: SplitSource) -> str:
    """The format of a split, a key of FORMATS."""
    return next(name for name, kind in FORMATS.items() if kind.matches(source))


def read_index(
    root: Path,
    split: str,
    *,
    videos: str = ".",
    class_names: tuple[str, ...] | None = None,
    numbered_names: tuple[str, ...] | None = None,
    allow_missing: bool = False,
    settings: SettingNames = ARGUMENT_NAMES,
) -> VideoIndex:
    """Read the index of a split below `root`.

    `split` is a folder or a file below `root`; `file.csv#val` takes the rows of a Kinetics CSV
    whose split column is val, `manifest.parquet#val` those of a manifest. `videos` is the folder,
    below `root`, that files refer to, or the URL of the folder of shards. If `class_names` is None,
    the class names are those of the manifest or the sorted labels of the split, or, for whole
    numbers, "0" to the largest.
    `numbered_names` are the classes that whole numbers count, if they are not `class_names`. Raises
    UserError, with file and line, for every mistake in a split. A listed video without a file is a
    mistake unless `allow_missing`. `settings` are the names that messages use.
    """
    source = _locate(root, split, videos, settings)
    if source.path.is_file() and is_manifest(source.path):  # no Entry for each of a million rows
        return read_manifest(source, class_names, settings)
    listed = FORMATS[detect_format(source)].read(source)
    entries = listed.entries
    if not entries:
        raise UserError(
            f"{source.path} lists no video; correct {settings.root} or the name of the split"
        )
    if class_names is None:
        class_names = listed_class_names(source.path, listed, settings)
    numbers = class_numbers(listed, class_names, settings, numbered_names)
    missing = tuple(entry for entry in entries if entry.path is None)
    if missing and not allow_missing:
        first = "; ".join(f"{entry.name} ({entry.source})" for entry in missing[:3])
        raise UserError(
            f"{len(missing)} of the {len(entries)} videos of {split} have no file below "
            f"{source.videos}, first {first}; add the files, or leave the videos out with "
            f"{settings.allow_missing}=true"
        )
    paths = [entry.path for entry in entries if entry.path]
    if not paths:
        raise UserError(
            f"none of the videos of {root / split} has a file; correct {settings.videos}"
        )
    labels = (
        indicators(numbers, len(class_names))
        if listed.multi_label
        else np.array([number for (number,) in numbers])
    )
    names = tuple(entry.name for entry in missing)
    remarks = listed.remarks
    if numbered_names is not None and listed.label_form != "name":
        remarks += name_differences(class_names, numbered_names, settings)
    absent = {label for entry in missing for label in entry.labels} - {*class_names}
    if absent and listed.label_form == "name":
        remarks += (f"{source.path}: no class {', '.join(sorted(absent))}: it has no file",)
    counts = _listed_frames(listed)
    return VideoIndex(paths, labels, class_names, names, remarks=remarks, listed_frames=counts)


def _listed_frames(listed: SplitEntries) -> np.ndarray | None:
    """The number of frames of each video that is found; 0 for one without a number."""
    counts = np.array([entry.num_frames or 0 for entry in listed.entries if entry.path])
    return counts if counts.any() else None


def _locate(root: Path, split: str, videos: str, settings: SettingNames) -> SplitSource:
    """Where a split is listed; raises UserError if it or the folder of videos does not exist."""
    file, _, part = split.partition("#")
    path, url = root / file, videos if "://" in videos else ""
    folder = root if url else root / videos
    if not path.exists():
        raise UserError(f"{path} does not exist; correct {settings.root} or the name of the split")
    if url and not (path.is_file() and is_manifest(path)):
        raise UserError(
            f"{path} is no manifest of shards, which a URL needs; correct {settings.videos}"
        )
    if not path.is_file():
        return SplitSource(path, part, folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; correct {settings.videos}")
    columns = () if is_manifest(path) else csv_columns(path)
    return SplitSource(path, part, folder, columns, url)
