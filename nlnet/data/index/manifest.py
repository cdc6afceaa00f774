"""Manifests: one Parquet file with a row for each listed video, written by tools/prepare.py.

Training reads the few columns that it needs, in batches. A manifest of a million videos therefore
costs neither much time nor much memory.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from nlnet.errors import UserError
from nlnet.files import digest, reading, write_atomic

MAGIC = b"PAR1"  # the first bytes of every Parquet file
METADATA = b"nlnet_manifest"  # the key of the JSON text with the classes
VERSION = 1
OK = "ok"  # the status of a row that training uses
GROUP = 65_536  # rows that a file stores together
BATCH = 16_384  # rows that are read at once


@dataclass(frozen=True)
class VideoFacts:
    """What was measured about one file. Sizes are those of the shown frame."""

    status: str = OK  # "ok", or a short name of what is wrong
    cause: str = ""  # the whole sentence
    num_frames: int = 0  # frames that decode
    duration: float = 0.0  # seconds
    rate: float = 0.0  # frames per second, on average
    width: int = 0
    height: int = 0
    rotation: int = 0  # degrees that the file asks to turn its frames by
    mirrored: bool = False  # whether the file asks to mirror its frames
    codec: str = ""
    container: str = ""
    key_frames: tuple[int, ...] = ()  # numbers of the frames from which decoding can start
    key_times: tuple[int, ...] = ()  # their time stamps, in units of the stream
    # In files without a reliable index: frames from which decoding was tried, and gives the same
    # frames as from the start; where to seek, in units of the stream.
    entry_frames: tuple[int, ...] = ()
    entry_times: tuple[int, ...] = ()
    size: int = 0  # bytes
    modified: int = 0  # time of the last change, nanoseconds
    sha256: str = ""
    verified: str = ""  # how the file was read: a word of --verify


@dataclass(frozen=True)
class ManifestRow:
    """One listed video: what the annotations say, and the facts of its file."""

    path: str  # relative to the folder of videos; "" without a file; in a shard: shard/member
    split: str
    name: str  # as listed
    source: str  # file and row of the annotation
    labels: tuple[int, ...]
    start_frame: int = 0  # the clip is the frames [start_frame, end_frame) of the file
    end_frame: int = 0
    shard: str = ""  # the tar file that holds the video; "" for a file of its own
    offset: int = 0  # of the first byte of the video in the shard
    facts: VideoFacts = field(default_factory=VideoFacts)


class ShardRecord(NamedTuple):
    """A tar file with videos, as it was written."""

    name: str
    size: int  # bytes
    digest: str  # of what it holds; its first bytes have it, too


@dataclass(frozen=True)
class ManifestHeader:
    """What holds for all rows."""

    class_names: tuple[str, ...]
    multi_label: bool
    version: int = VERSION
    shards: tuple[ShardRecord, ...] = ()


def is_manifest(path: Path) -> bool:
    """Whether a file is a Parquet file."""
    with reading(path), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def write_manifest(path: Path, header: ManifestHeader, rows: Sequence[ManifestRow]) -> str:
    """Write a manifest, whole or not at all; returns its SHA-256."""
    arrow, parquet = _library()
    types = _row_types(arrow) | (_shard_types(arrow) if header.shards else {})
    columns = {name: [getattr(row, name) for row in rows] for name in types}
    facts = {name: [getattr(row.facts, name) for row in rows] for name in _fact_types(arrow)}
    values = {name: value for name, value in asdict(header).items() if name != "shards" or value}
    schema = arrow.schema(
        list({**types, **_fact_types(arrow)}.items()),
        metadata={METADATA: json.dumps(values).encode()},
    )
    buffer = io.BytesIO()
    table = arrow.table({**columns, **facts}, schema=schema)
    parquet.write_table(table, buffer, row_group_size=GROUP)
    data = buffer.getbuffer()
    write_atomic(path, data)
    return digest(data)


def read_manifest_rows(path: Path) -> tuple[ManifestHeader, list[ManifestRow]]:
    """All rows of a manifest with all facts; for a report or to continue, not for training."""
    file = open_manifest(path)
    header = read_manifest_header(path, file)
    rows = []
    own = [each.name for each in fields(ManifestRow) if each.name != "facts"]
    for batch in file.iter_batches(BATCH):
        for values in batch.to_pylist():
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            facts = VideoFacts(**{k: v for k, v in values.items() if k not in own})
            row = {name: values[name] for name in own if name in values}
            rows.append(ManifestRow(**row, facts=facts))
    return header, rows


def open_manifest(path: Path) -> Any:
    """Open a Parquet file; raises UserError if it is damaged."""
    arrow, parquet = _library()
    try:
        # Parts of a mapped file would count as memory of the process until it is closed.
        return parquet.ParquetFile(path, memory_map=False)
    except (arrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a whole Parquet file; make it again") from error


def read_manifest_header(path: Path, file: Any) -> ManifestHeader:
    """The classes; raises UserError for a Parquet file that tools/prepare.py did not write."""
    text = (file.schema_arrow.metadata or {}).get(METADATA)
    if text is None:
        raise UserError(f"{path} is not a manifest; make one with tools/prepare.py")
    values = json.loads(text)
    if values["version"] != VERSION:
        raise UserError(
            f"{path} has version {values['version']} of the manifest, not {VERSION}; make it again "
            "with tools/prepare.py"
        )
    shards = tuple(ShardRecord(*record) for record in values.get("shards", ()))
    return ManifestHeader(tuple(values["class_names"]), values["multi_label"], shards=shards)


def read_batches(file: Any, columns: Sequence[str]) -> Iterator[Any]:
    """The rows of some columns of a Parquet file, in parts.

    Each group of rows has a reader of its own: a reader keeps the texts that it has read.
    """
    for group in range(file.metadata.num_row_groups):
        yield from file.iter_batches(
            BATCH, row_groups=[group], columns=list(columns), use_threads=False
        )


def count_values(file: Any) -> dict[str, int]:
    """The number of values of each column of a Parquet file; a row of a list has several."""
    return _sum_of_chunks(file, "num_values")


def count_bytes(file: Any, name: str) -> int:
    """About as many bytes as the texts of a column have."""
    return _sum_of_chunks(file, "total_uncompressed_size")[name]


def release_memory() -> None:
    """Give memory back that reading has left unused."""
    arrow, _ = _library()
    arrow.default_memory_pool().release_unused()


def left_out(statuses: Counter[str]) -> dict[str, int]:
    """The number of rows of each status that is not ok, the most frequent first."""
    return {status: count for status, count in statuses.most_common() if status != OK}


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in 64 hexadecimal digits, read in parts."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            state.update(part)
    return state.hexdigest()


def require_parquet() -> None:
    """Raise UserError if the library that reads Parquet is not installed."""
    if find_spec("pyarrow") is None:
        raise UserError('pyarrow: not installed; run pip install "nlnet[parquet]"')


def _sum_of_chunks(file: Any, fact: str) -> dict[str, int]:
    """The sum of a fact over the chunks of each column."""
    sums: Counter[str] = Counter()
    for group in range(file.metadata.num_row_groups):
        for number in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(number)
            sums[chunk.path_in_schema.partition(".")[0]] += attrgetter(fact)(chunk)
    return dict(sums)


def _library() -> tuple[ModuleType, ModuleType]:
    require_parquet()
    import pyarrow
    from pyarrow import parquet

    return pyarrow, parquet


def _row_types(arrow: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(("path", "name", "source"), arrow.string()),
        "split": arrow.string(),
        "labels": arrow.list_(arrow.int32()),
        **dict.fromkeys(("start_frame", "end_frame"), arrow.int32()),
    }


def _shard_types(arrow: Any) -> dict[str, Any]:
    return {"shard": arrow.string(), "offset": arrow.int64()}


def _fact_types(arrow: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(("status", "cause"), arrow.string()),
        **dict.fromkeys(("num_frames", "width", "height", "rotation"), arrow.int32()),
        **dict.fromkeys(("duration", "rate"), arrow.float64()),
        "mirrored": arrow.bool_(),
        **dict.fromkeys(("codec", "container", "sha256", "verified"), arrow.string()),
        **dict.fromkeys(("key_frames", "entry_frames"), arrow.list_(arrow.int32())),
        **dict.fromkeys(("key_times", "entry_times"), arrow.list_(arrow.int64())),
        **dict.fromkeys(("size", "modified"), arrow.int64()),
    }
