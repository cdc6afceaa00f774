"""Which files are videos, and which of them belongs to a listed name."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from nlnet.errors import UserError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts"}
    | {".webm", ".wmv"}
)


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video; hidden files are no videos."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def files_by_stem(folder: Path) -> dict[str, list[Path]]:
    """All videos below a folder, by file name without suffix."""
    files: dict[str, list[Path]] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(parent, name)
            if is_video(path):
                files.setdefault(path.stem, []).append(path)
    return files


def find_file(
    files: Mapping[str, list[Path]], stems: Iterable[str], hints: set[str], source: str
) -> Path | None:
    """The file of the first stem that has one; None if there is none.

    If several files have the stem, the one with the most folders named in `hints` is taken. Raises
    UserError, with `source`, if this does not decide.
    """
    for stem in stems:
        if stem in files:
            hits = [len(hints.intersection(path.parts)) for path in files[stem]]
            best = [p for p, hit in zip(files[stem], hits, strict=True) if hit == max(hits)]
            if len(best) > 1:
                raise UserError(f"{source} fits two files, {best[0]} and {best[1]}; remove one")
            return best[0]
    return None
