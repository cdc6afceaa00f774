"""A plain folder: `train/<class>/<video>` and other splits, or `<class>/<video>` without splits."""

from pathlib import Path

from nlnet.data.index.entries import SplitSource
from nlnet.data.index.folder import read_folder
from nlnet.data.prepare.data_set import SPLIT_NAMES, DataFolder, DataSet


def list_folders(data: DataFolder) -> DataSet:
    """The splits of a folder; all videos are the split `all` if no folder is named as a split."""

    def source(path: Path) -> SplitSource:
        return SplitSource(path, "", data.videos)

    splits = {
        SPLIT_NAMES[path.name.lower()]: read_folder(source(path))
        for path in sorted(data.videos.iterdir())
        if path.is_dir() and path.name.lower() in SPLIT_NAMES
    }
    return DataSet(splits or {"all": read_folder(source(data.videos))})
