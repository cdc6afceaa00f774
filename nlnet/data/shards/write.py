"""Writing shards: each is written whole or not at all, and a repeated command continues."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from nlnet.data.shards.layout import (
    END,
    PlannedVideo,
    ShardPlan,
    member_header,
    notes_name,
    padding,
    shard_head,
)
from nlnet.errors import UserError
from nlnet.files import cannot_write, replace_synced

PART = 1 << 20  # bytes that are copied at once


def is_written(folder: Path, plan: ShardPlan) -> bool:
    """Whether a folder has this shard already."""
    head = shard_head(plan.record().digest)
    with suppress(OSError), (folder / plan.name).open("rb") as file:
        return os.fstat(file.fileno()).st_size == plan.size and file.read(len(head)) == head
    return False


def check_space(folder: Path, plans: Sequence[ShardPlan]) -> None:
    """Raise UserError if the shards do not fit on the disk."""
    needed, free = sum(plan.size for plan in plans), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the shards need {needed:,} bytes, {free:,} are free; free disk space, or "
            "give another place with --out"
        )


def write_shard(folder: Path, plan: ShardPlan, videos: Path) -> None:
    """Write one shard from the files in the folder `videos`.

    Raises UserError if a file is not the one that was measured, or if the disk is full.
    """
    path = folder / plan.name
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as out:
            out.write(shard_head(plan.record().digest))
            for video in plan.videos:
                out.write(member_header(video.name, video.row.facts.size))
                assert out.tell() == video.offset
                _copy_video(videos / video.row.path, video, out)
                notes = video.notes
                out.write(member_header(notes_name(video.name), len(notes)))
                out.write(notes + padding(len(notes)))
            out.write(END)
            assert out.tell() == plan.size
            out.flush()
            os.fsync(out.fileno())
        replace_synced(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # an error here would replace the original exception
            partial.unlink()


def _copy_video(path: Path, video: PlannedVideo, out: BinaryIO) -> None:
    """Copy a file, and compare it with what was measured."""
    facts, state, size = video.row.facts, hashlib.sha256(), 0
    for part in _parts(path):
        state.update(part)
        size += len(part)
        out.write(part)
    if (size, state.hexdigest()) != (facts.size, facts.sha256):
        raise UserError(f"{path} has changed since it was measured; run the command again")
    out.write(padding(size))


def _parts(path: Path) -> Iterator[bytes]:
    """The bytes of a file; raises UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            while part := file.read(PART):
                yield part
    except OSError as error:
        raise UserError(
            f"{path} cannot be read any more ({error.strerror}); run the command again"
        ) from error
