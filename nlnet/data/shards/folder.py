"""A folder of shards with its manifest: written from files, and compared with their digests."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from nlnet.clip import Failure
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.index.manifest import (
    OK,
    ManifestHeader,
    ManifestRow,
    open_manifest,
    read_manifest_rows,
    write_manifest,
)
from nlnet.data.shards.index import read_members
from nlnet.data.shards.layout import ShardPlan, plan_shards
from nlnet.data.shards.write import check_space, is_written, write_shard
from nlnet.files import cannot_write

SHARD_MANIFEST = "manifest.parquet"


class WrittenShards(NamedTuple):
    """What is in a folder of shards."""

    shards: int
    size: int  # bytes of all shards
    new: int  # shards that were not there before
    digest: str  # SHA-256 of the manifest


def write_shard_folder(
    folder: Path,
    header: ManifestHeader,
    rows: Sequence[ManifestRow],
    videos: Path,
    size: int,
    progress: Callable[[Sequence[ShardPlan]], Iterable[ShardPlan]] = iter,
) -> WrittenShards:
    """Write the usable videos of a manifest into shards of at most `size` bytes.

    Shards that are there already are kept. Others that an older manifest of the folder names, and
    this one does not, are removed.

    Args:
        folder: is made if it does not exist
        header: of the manifest of the files
        rows: of this manifest
        videos: the folder that the paths of the rows are relative to
        size: of a shard, in bytes
        progress: gives the shards to write one by one, and may show how far they are

    Raises:
        UserError: a file has changed since it was measured, or the disk is full.
    """
    manifest = folder / SHARD_MANIFEST
    plans, placed = plan_shards(header, rows, size)
    old = read_manifest_rows(manifest)[0].shards if manifest.exists() else ()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    todo = [plan for plan in plans if not is_written(folder, plan)]
    check_space(folder, todo)
    for plan in progress(todo):
        write_shard(folder, plan, videos)
    records = tuple(plan.record() for plan in plans)
    digest = write_manifest(manifest, replace(header, shards=records), placed)
    for name in sorted({record.name for record in old} - {plan.name for plan in plans}):
        (folder / name).unlink(missing_ok=True)
    return WrittenShards(len(plans), sum(plan.size for plan in plans), len(todo), digest)


def broken_members(manifest: Path, folder: Path) -> Iterator[Failure | None]:
    """For each video in shards: None if its bytes are those that were written."""
    header, rows = read_manifest_rows(manifest)
    members = read_members(open_manifest(manifest), header, "", folder)
    for i, row in enumerate(row for row in rows if row.facts.status == OK):
        try:
            members.check(i, Path(row.path))
            yield None
        except DecodeError as error:
            yield Failure(row.path, error.cause)
