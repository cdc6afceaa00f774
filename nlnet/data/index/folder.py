"""A folder of class folders: `train/<class>/<video>`, or deeper: `train/<class>/.../<video>`.

A class folder without video files may have folders of frames instead, such as
`train/<class>/<video>/img_00001.jpg`.
"""

from collections import Counter
from pathlib import Path

from nlnet.data.index.entries import Entry, SplitEntries, SplitSource
from nlnet.data.index.files import (
    SHARDS_SUFFIX,
    all_files,
    files_and_frames,
    is_frame_folder,
    is_video,
    nfc,
)
from nlnet.errors import UserError
from nlnet.files import reading


def is_folder(source: SplitSource) -> bool:
    """Whether a split is a folder."""
    return source.path.is_dir()


def read_folder(source: SplitSource) -> SplitEntries:
    """The videos below each class folder; the label of a video is the name of its class folder.

    Raises UserError for a class folder without videos and for a video outside a class folder.
    """
    source.refuse_part()
    entries: list[Entry] = []
    others: Counter[str] = Counter()  # the files that are no videos, by suffix
    with reading(source.path):
        folders = sorted(source.path.iterdir())
    for class_folder in folders:
        if not class_folder.is_dir():
            if is_video(class_folder):
                raise UserError(f"{class_folder} is outside a class folder; move it into one")
            continue
        if class_folder.name.startswith(".") or class_folder.suffix == SHARDS_SUFFIX:
            continue
        label = nfc(class_folder.name)
        found, left_out = _videos_of_class(class_folder)
        others += left_out
        for path in found:
            name = path.relative_to(class_folder).as_posix()
            entries.append(Entry(str(class_folder), name, (label,), path))
    return SplitEntries(entries, remarks=_describe(source.path, others))


def _videos_of_class(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The videos of a class folder, and how many files are no videos, by suffix."""
    videos, frames, others = [], [], Counter[str]()
    for path in files_and_frames(folder):
        if is_video(path):
            videos.append(path)
        elif path.is_dir():
            frames.append(path)
        else:
            others[_kind(path)] += 1
    if videos:  # images beside videos are no frames
        others.update(_kind(path) for place in frames for path in all_files(place))
        return videos, others
    if is_frame_folder(folder):
        raise UserError(
            f"class folder {folder} has images but no video; move the frames of each video into a "
            "folder of their own"
        )
    if not frames:
        raise UserError(f"class folder {folder} has no video; fill or remove it")
    return frames, others


def _kind(path: Path) -> str:
    return path.suffix.lower() or "without suffix"


def _describe(folder: Path, others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    return (f"{folder}: {others.total()} files are no videos and are left out ({kinds})",)
