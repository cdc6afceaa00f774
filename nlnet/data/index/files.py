"""Which files and folders of frames are videos, and which of them belongs to a listed name.

Names are compared in Unicode NFC: some systems store `é` as one character, others as two.
"""

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from nlnet.data.decoding.frame_names import has_frame_name
from nlnet.errors import UserError
from nlnet.files import reading

VIDEO_SUFFIXES = frozenset(
    {".264", ".265", ".3gp", ".3gpp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif"}
    | {".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4p", ".m4v", ".mjpeg"}
    | {".mkv", ".mod", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nut"}
    | {".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)

SHARDS_SUFFIX = ".shards"  # of a folder of shards, which is beside the manifest of its files


def nfc(text: str) -> str:
    """A text in Unicode's composed form, in which equal names are equal strings."""
    return unicodedata.normalize("NFC", text)


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video; hidden files are no videos."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def all_files(folder: Path) -> Iterator[Path]:
    """All files below a folder, by name; hidden files and folders are left out.

    Links are followed, but no folder is entered twice on the way down, so that loops end. Raises
    UserError for a folder that cannot be read.
    """
    return _walk(folder, frozenset(), joins_frames=False)


def is_frame_folder(folder: Path) -> bool:
    """Whether a path is a folder that has images with the names of frames."""
    if not folder.is_dir():
        return False
    with reading(folder), os.scandir(folder) as scan:
        return any(has_frame_name(item.name) for item in scan)


def files_and_frames(folder: Path) -> Iterator[Path]:
    """All files below a folder, by name; a folder of frames stands for its files."""
    return _walk(folder, frozenset(), joins_frames=True)


def frame_folders(folder: Path) -> list[Path]:
    """All folders of frames below a folder, by name."""
    return [path for path in files_and_frames(folder) if not is_video(path) and path.is_dir()]


def _are_frames(names: Iterable[str]) -> bool:
    """Whether the files of a folder, with these names, are frames, and no video is beside them."""
    found = False
    for name in names:
        if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
            return False
        found = found or has_frame_name(name)
    return found


def _walk(
    folder: Path,
    above: frozenset[tuple[int, int]],
    joins_frames: bool,
    in_frames: bool = False,
) -> Iterator[Path]:
    """The files below a folder; or, for each folder of frames, the folder instead of its files.

    Files are searched below folders of frames, too, but other folders of frames are not.
    """
    with reading(folder):
        status = folder.stat()
        here = status.st_dev, status.st_ino
        if here in above:
            return
        with os.scandir(folder) as scan:
            shown = (item for item in scan if item.name[0] != ".")
            items = sorted(shown, key=lambda item: item.name)
    are_frames = joins_frames and bool(above) and _are_frames(item.name for item in items)
    if are_frames and not in_frames:
        yield folder
    for item in items:
        if item.is_dir():
            path = Path(item.path)
            yield from _walk(path, above | {here}, joins_frames, in_frames or are_frames)
        elif not are_frames:
            yield Path(item.path)


def video_files(folder: Path) -> Iterator[Path]:
    """All videos below a folder, by name: files, and folders of frames."""
    return (path for path in files_and_frames(folder) if is_video(path) or path.is_dir())


def files_by_stem(folder: Path) -> dict[str, list[Path]]:
    """All videos below a folder, by name without the suffix of a video, in NFC."""
    files: dict[str, list[Path]] = {}
    for path in video_files(folder):
        files.setdefault(_stem(path), []).append(path)
    return files


def _stem(path: Path) -> str:
    return nfc(path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name)


def find_file(
    files: Mapping[str, list[Path]],
    stems: Iterable[str],
    hints: set[str],
    source: str,
    *,
    others: Collection[str] = (),
) -> Path | None:
    """The file of the first stem that has one; None if there is none.

    If several files have the stem, the one with the most folders named in `hints` is taken. Raises
    UserError, with `source`, if this does not decide.

    Files whose folder has a name in `others`, the folders of other classes, are not taken.
    """
    hints = {nfc(hint) for hint in hints}
    wrong = {nfc(name).casefold() for name in others} - {hint.casefold() for hint in hints}
    for stem in map(nfc, stems):
        paths = [p for p in files.get(stem, []) if nfc(p.parent.name).casefold() not in wrong]
        if paths:
            hits = [len(hints.intersection(map(nfc, path.parts))) for path in paths]
            best = [p for p, hit in zip(paths, hits, strict=True) if hit == max(hits)]
            if len(best) > 1:
                raise UserError(f"{source} fits two files, {best[0]} and {best[1]}; remove one")
            return best[0]
    return None


class NamedFiles:
    """Finds listed files below a folder: by path, by path with the suffix of another video format
    (as the copies of tools/prepare.py have), or, for a name without suffix, by its stem.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, Path] | None = None  # walking takes time: only if it is needed
        self._bare: dict[str, list[Path]] = {}  # by path without suffix
        self._stems: dict[str, list[Path]] = {}

    def find(self, name: str, source: str) -> Path | None:
        """The file of a listed name; None if there is none. Raises UserError if two fit."""
        path = self._folder / Path(name).expanduser()
        if path.is_file() or is_frame_folder(path):
            return path
        if self._paths is None:
            self._paths = {}
            for each in video_files(self._folder):
                inside = each.relative_to(self._folder)
                self._paths[nfc(str(inside))] = each
                self._bare.setdefault(nfc(str(inside.with_name(_stem(each)))), []).append(each)
                self._stems.setdefault(_stem(each), []).append(each)
        found = self._paths.get(nfc(os.path.normpath(name)))
        if found is not None:
            return found
        if is_video(Path(name)):
            bare = os.path.normpath(Path(name).with_suffix(""))
            return find_file(self._bare, (bare,), set(), source)
        return find_file(self._stems, (name,), set(), source) if "/" not in name else None
