"""Where the videos of a split are in shards, from the columns of a manifest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nlnet.data.index.columns import Column
from nlnet.data.index.manifest import OK, ManifestHeader, read_batches, release_memory
from nlnet.data.shards.members import DIGEST, MemberTable, ShardMembers
from nlnet.data.shards.remote import RemoteShards
from nlnet.data.shards.store import LocalShards, ShardStore

COLUMNS = ("split", "status", "shard", "offset", "size", "sha256")


def read_members(file: Any, header: ManifestHeader, part: str, place: Path | str) -> ShardMembers:
    """The videos of the rows of a split whose status is ok, in the order of the rows.

    Args:
        file: a Parquet file
        part: the split; "" for all rows
        place: the folder or the URL of the shards
    """
    rows = file.metadata.num_rows
    types = [(np.int32, rows), (np.int64, rows), (np.int64, rows), (np.uint8, DIGEST * rows)]
    columns = [Column(*each) for each in types]
    for arrays in _parts(file, header, part):
        for column, array in zip(columns, arrays, strict=True):
            column.add(array.ravel())
    release_memory()
    shard, offset, size, digest = (column.numbers for column in columns)
    table = MemberTable(shard, offset, size, digest.reshape(-1, DIGEST))
    store: ShardStore
    if isinstance(place, Path):
        store = LocalShards(place, header.shards)
    else:
        store = RemoteShards(place, header.shards)
    return ShardMembers(store, table)


def _parts(file: Any, header: ManifestHeader, part: str) -> Iterator[MemberTable]:
    numbers = {record.name: number for number, record in enumerate(header.shards)}
    for batch in read_batches(file, COLUMNS):
        used = _texts(batch, "status") == OK
        if part:
            used &= _texts(batch, "split") == part
        ok = batch.take(np.flatnonzero(used))
        coded = ok.column("shard").dictionary_encode()
        shards = np.array([numbers[name] for name in coded.dictionary.to_pylist()], np.int32)
        digests = "".join(text[: 2 * DIGEST] for text in ok.column("sha256").to_pylist())
        yield MemberTable(
            shards[coded.indices.to_numpy()],
            ok.column("offset").to_numpy(),
            ok.column("size").to_numpy(),
            np.frombuffer(bytes.fromhex(digests), np.uint8).reshape(-1, DIGEST),
        )


def _texts(batch: Any, name: str) -> np.ndarray:
    """A column of few different texts."""
    coded = batch.column(name).dictionary_encode()
    return np.array(coded.dictionary.to_pylist())[coded.indices.to_numpy()]
