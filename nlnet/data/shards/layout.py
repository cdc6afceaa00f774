"""The layout of shards: which videos each tar file holds, and where their bytes are.

A shard is a tar file in the layout of WebDataset: the files of a sample are one after the other,
and their names differ only after the first dot. A sample is a video and a JSON text with its
labels. The layout follows from the rows of a manifest alone, so that an interrupted writer goes on
with the shards that are missing.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from nlnet.data.index.manifest import OK, ManifestHeader, ManifestRow, ShardRecord

BLOCK = 512  # bytes; every part of a tar file is filled up to a multiple
END = bytes(2 * BLOCK)  # the last blocks of a tar file


@dataclass(frozen=True)
class PlannedVideo:
    """A video in a shard."""

    row: ManifestRow  # of its file
    name: str  # in the tar file
    offset: int  # of its first byte in the tar file
    notes: bytes  # the JSON text


@dataclass
class ShardPlan:
    """A tar file: its name, what it holds, and its size in bytes."""

    name: str
    videos: list[PlannedVideo] = field(default_factory=list)
    size: int = 0

    def record(self) -> ShardRecord:
        """What the manifest says about the shard; the digest depends on all that it holds."""
        state = hashlib.sha256()
        for video in self.videos:
            facts = video.row.facts
            state.update(f"{video.name}\n{video.offset}\n{facts.size}\n{facts.sha256}\n".encode())
            state.update(video.notes)
        return ShardRecord(self.name, self.size, state.hexdigest())


def plan_shards(
    header: ManifestHeader, rows: Sequence[ManifestRow], size: int
) -> tuple[list[ShardPlan], list[ManifestRow]]:
    """The shards of the rows that are ok, each at most `size` bytes or one video, split by split.

    Also returns all rows as the manifest of the shards has them, in the same order.
    """
    plans: dict[str, list[ShardPlan]] = {}
    keys: dict[str, set[str]] = {}
    placed = []
    for row in rows:
        if row.facts.status != OK:
            placed.append(row)
            continue
        shards = plans.setdefault(row.split, [])
        name = _member_name(row.path, keys.setdefault(row.split, set()))
        notes = _notes(header, row)
        needed = sum(_entry_sizes(name, row.facts.size, notes))
        if not shards or shards[-1].size + needed > size:
            head = len(shard_head("0" * 64))
            shards.append(ShardPlan(f"{row.split}-{len(shards):06d}.tar", size=head + len(END)))
        plan = shards[-1]
        offset = plan.size - len(END) + len(member_header(name, row.facts.size))
        plan.videos.append(PlannedVideo(row, name, offset, notes))
        plan.size += needed
        path = f"{plan.name}/{name}"
        placed.append(replace(row, path=path, shard=plan.name, offset=offset))
    return [plan for shards in plans.values() for plan in shards], placed


def shard_head(digest: str) -> bytes:
    """The first bytes of a shard: a comment that tells it from every other shard."""
    return tarfile.TarInfo.create_pax_global_header({"comment": f"nlnet shard {digest}"})


def member_header(name: str, size: int) -> bytes:
    """The bytes before a file in a tar file; the same for the same name and size."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """The bytes after a file in a tar file."""
    return bytes(-size % BLOCK)


def notes_name(name: str) -> str:
    """The name of the JSON text of a video."""
    return f"{name.rpartition('.')[0]}.json"


def _entry_sizes(name: str, size: int, notes: bytes) -> Iterator[int]:
    for each, length in ((name, size), (notes_name(name), len(notes))):
        yield len(member_header(each, length)) + length + len(padding(length))


def _member_name(path: str, used: set[str]) -> str:
    """The path of a file, with one dot, and with a number if another sample has the same name."""
    parts = [part for part in PurePath(path).parts if part not in ("/", "..")]
    stem, dot, suffix = parts[-1].rpartition(".")
    key = "/".join([*parts[:-1], re.sub(r"\.", "_", stem if dot else suffix)])
    unique, number = key, 1
    while unique in used:
        number += 1
        unique = f"{key}_{number}"
    used.add(unique)
    return f"{unique}.{suffix.lower() if dot else 'video'}"


def _notes(header: ManifestHeader, row: ManifestRow) -> bytes:
    """The labels of a row, for readers that do not have the manifest."""
    notes = {
        "path": row.path,
        "labels": list(row.labels),
        "class_names": [header.class_names[label] for label in row.labels],
        "start_frame": row.start_frame,
        "end_frame": row.end_frame,
    }
    return json.dumps(notes).encode()
