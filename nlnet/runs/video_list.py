"""Which videos a run uses: a list of them in its folder, and how two lists differ."""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Protocol

from nlnet.checkpoint import SplitFacts
from nlnet.errors import UserError
from nlnet.files import cannot_write, digest, write_atomic

PART = 4096  # rows of a list that are made at once
NAMED = 3  # videos that a message names of each kind of change
UTF_8 = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files can be any bytes


class VideoRow(NamedTuple):
    """One video of a split."""

    path: str  # relative to the folder of the data, if it is below it
    labels: str  # names of classes, joined by |
    size: int  # bytes of the file; 0 if a manifest describes the files


class VideoRows(Protocol):
    """Rows that may be made while they are read: a million of them need much memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[VideoRow]: ...


@dataclass(frozen=True)
class VideoList:
    """The videos of a split, in the order of its index."""

    rows: VideoRows
    manifest: str | None = None  # the SHA-256 of the manifest that describes the files

    def facts(self) -> SplitFacts:
        """What a checkpoint says about the list."""
        state = hashlib.sha256()
        for part in self._text():
            state.update(part)
        return SplitFacts(len(self.rows), state.hexdigest(), self.manifest)

    def write(self, path: Path) -> SplitFacts:
        """Write the list as CSV, and create its folder; returns its facts.

        Raises UserError if that fails.
        """
        state = hashlib.sha256()

        def parts() -> Iterator[bytes]:
            for part in self._text():
                state.update(part)
                yield part

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        write_atomic(path, parts())
        return SplitFacts(len(self.rows), state.hexdigest(), self.manifest)

    def _text(self) -> Iterator[bytes]:
        """The list as CSV, in parts."""
        rows = chain([VideoRow._fields], self.rows)
        while part := list(islice(rows, PART)):
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(part)
            yield text.getvalue().encode(**UTF_8)


def videos_path(folder: Path, split: str) -> Path:
    """Return the file in a run's folder that lists the videos of `train` or `val`."""
    return folder / f"{split}_videos.csv"


def split_changes(folder: Path, split: str, saved: SplitFacts, now: VideoList) -> list[str]:
    """Say in words how a split differs from the one of a checkpoint; nothing if it does not.

    The names of the earlier videos are those of the list in the folder of the run. If that file is
    missing or damaged, only numbers are given.
    """
    facts = now.facts()
    if facts == saved:
        return []
    earlier = _read_rows(videos_path(folder, split), saved.sha256)
    changes = [] if earlier is None else list(_differences(earlier, now.rows))
    if not changes:
        what = f"{saved.videos} -> {facts.videos} videos"
        if saved.videos == facts.videos:
            what = f"the same {saved.videos} videos in another order, or another list of them"
            if saved.sha256 == facts.sha256:
                what = "another manifest of the same videos"
        changes = [what]
    return [f"{split}: {change}" for change in changes]


def _read_rows(path: Path, sha256: str) -> list[VideoRow] | None:
    """Read the rows of a list; None if there is no file with this digest."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if digest(data) != sha256:
        return None
    _, *rows = csv.reader(io.StringIO(data.decode(**UTF_8), newline=""))
    try:
        return [VideoRow(name, labels, int(size)) for name, labels, size in rows]
    except ValueError as error:
        raise UserError(f"{path}: is not a list of videos; remove it") from error


def _differences(before: VideoRows, after: VideoRows) -> Iterator[str]:
    old, new = {row.path: row for row in before}, {row.path: row for row in after}
    kept = [path for path in old if path in new]
    relabeled = [path for path in kept if old[path].labels != new[path].labels]
    replaced = [path for path in kept if old[path].size != new[path].size]
    for what, paths in (
        ("removed", [path for path in old if path not in new]),
        ("added", [path for path in new if path not in old]),
        ("replaced by another file", replaced),
    ):
        if paths:
            yield _named(len(paths), what, paths)
    if relabeled:
        shown = [f"{path}: {old[path].labels} -> {new[path].labels}" for path in relabeled[:NAMED]]
        yield _named(len(relabeled), "with another class", shown)


def _named(count: int, what: str, names: Sequence[str]) -> str:
    shown = ", ".join([*names[:NAMED], *(["..."] if count > NAMED else [])])
    return f"{count} {'video' if count == 1 else 'videos'} {what} ({shown})"
