"""The index of a split from a manifest, by column and in batches: a million rows in seconds."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from nlnet.clip import ManifestUse
from nlnet.data.decoding.known import is_unchanged
from nlnet.data.index.columns import Column
from nlnet.data.index.entries import SplitSource
from nlnet.data.index.files import nfc
from nlnet.data.index.manifest import (
    OK,
    ManifestHeader,
    count_bytes,
    count_values,
    file_digest,
    left_out,
    open_manifest,
    read_batches,
    read_manifest_header,
    release_memory,
)
from nlnet.data.index.video_index import EntryTable, MeasuredFrames, PathTable, VideoIndex
from nlnet.data.setting_names import SettingNames
from nlnet.data.shards.index import read_members
from nlnet.data.shards.members import ShardMembers
from nlnet.errors import UserError

FRAME_COLUMNS = {
    **dict.fromkeys(("num_frames", "start_frame", "end_frame"), np.int32),
    **dict.fromkeys(("size", "modified"), np.int64),
}
ENTRY_COLUMNS = ("entry_frames", "entry_times")  # older manifests do not have them
LOOKED = 8  # files whose size and time are compared with the manifest at the start
COLUMNS = ("path", "split", "labels", "status", *FRAME_COLUMNS)


def read_manifest(
    source: SplitSource, class_names: tuple[str, ...] | None, settings: SettingNames
) -> VideoIndex:
    """The rows of a split whose status is ok; the others are counted by their status.

    `class_names` is the order of the classes; None takes that of the manifest. Raises UserError if
    the split has no such row, if the manifest has several splits and none is chosen, for a class
    that is not in `class_names`, and if shards are missing or are not those of the manifest.
    """
    file = open_manifest(source.path)
    header = read_manifest_header(source.path, file)
    splits = _splits(file)
    if (source.part and source.part not in splits) or (not source.part and len(splits) > 1):
        choices = " or ".join(f"{source.path.name}#{name}" for name in splits)
        what = f"no split {source.part!r}" if source.part else "several splits"
        raise UserError(f"{source.path} has {what}; choose one: {choices}")
    statuses: Counter[str] = Counter()
    columns = _read_columns(file, source.part, statuses)
    (lengths, texts, counts, labels), frames = columns[:4], columns[4:]
    used, rows = len(lengths), statuses.total()
    if not used:
        raise UserError(
            f"{source.path}: no row of the split can be used ({_counts(statuses)}); correct the "
            "files and run tools/prepare.py again"
        )
    names = header.class_names if class_names is None else class_names
    numbers = _renumbered(source, header.class_names, names, labels, settings)
    if header.multi_label:
        matrix = np.zeros((used, len(names)), np.float32)
        matrix[np.repeat(np.arange(used), counts), numbers] = 1
        numbers = matrix
    use = ManifestUse(
        file=source.path.name,
        part=source.part,
        sha256=file_digest(source.path),
        rows=rows,
        used=used,
        left_out=left_out(statuses),
    )
    remark = f"{use.file}: {used} of {rows} rows of {source.part or 'all splits'} are used"
    remarks: tuple[str, ...] = ()
    if use.left_out:
        remarks = (f"{remark}; left out: {_counts(statuses)}",)
    table = PathTable(texts, np.cumsum(lengths, dtype=np.int64), os.fsencode(source.videos) + b"/")
    measured = _measured(*frames)
    if not header.shards:
        remarks += _changed(use.file, table, measured)
    return VideoIndex(
        table,
        numbers,
        names,
        remarks=remarks,
        manifest=use,
        frames=measured,
        members=_members(source, file, header, settings),
    )


def _measured(
    num_frames: np.ndarray,
    first: np.ndarray,
    end: np.ndarray,
    size: np.ndarray,
    modified: np.ndarray,
    entry_counts: np.ndarray,
    entry_frames: np.ndarray,
    entry_times: np.ndarray,
) -> MeasuredFrames:
    entries = EntryTable(entry_frames, entry_times, np.cumsum(entry_counts, dtype=np.int64))
    return MeasuredFrames(num_frames, first, end, size, modified, entries)


def _changed(name: str, paths: PathTable, measured: MeasuredFrames) -> tuple[str, ...]:
    """A line if files with entries have changed, by a look at a few of them."""
    rows = np.flatnonzero(np.diff(measured.entries.ends, prepend=0))
    looked = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), LOOKED)).astype(int))]
    facts = [(paths[row], int(measured.size[row]), int(measured.modified[row])) for row in looked]
    changed = [path for path, size, modified in facts if not is_unchanged(path, size, modified)]
    if not changed:
        return ()
    return (
        f"{name}: {len(changed)} of {len(looked)} files that were looked at have another size or "
        f"time than in the manifest, the first {changed[0]}; such files are measured again at each "
        "reading, which is slow: make the manifest again, or copy files with their times",
    )


def _members(
    source: SplitSource, file: Any, header: ManifestHeader, settings: SettingNames
) -> ShardMembers | None:
    """The videos in shards, after a check that the shards are there; None for files."""
    if header.shards:
        members = read_members(file, header, source.part, source.url or source.videos)
        members.check_start()
        return members
    if source.url:
        raise UserError(
            f"{source.path} lists files, which are not read from a URL; correct {settings.videos}, "
            "or write shards with tools/prepare.py --shards"
        )
    return None


def _splits(file: Any) -> list[str]:
    found: set[str] = set()
    for batch in read_batches(file, ["split"]):
        found.update(batch.column("split").unique().to_pylist())
    return sorted(found)


def _read_columns(file: Any, part: str, statuses: Counter[str]) -> list[np.ndarray]:
    """What `_ok_parts` gives, for the whole file."""
    rows, values = file.metadata.num_rows, count_values(file)
    entries = values.get(ENTRY_COLUMNS[0], 0)
    columns = [
        Column(np.int32, rows),  # lengths of paths
        Column(np.uint8, count_bytes(file, "path")),
        Column(np.int32, rows),  # labels of each row
        Column(np.int32, values["labels"]),
        *(Column(kind, rows) for kind in FRAME_COLUMNS.values()),
        Column(np.int32, rows),  # entries of each row
        Column(np.int32, entries),
        Column(np.int64, entries),
    ]
    for arrays in _ok_parts(file, part, statuses):
        for column, array in zip(columns, arrays, strict=True):
            column.add(array)
    release_memory()
    return [column.numbers for column in columns]


def _ok_parts(file: Any, part: str, statuses: Counter[str]) -> Iterator[tuple[np.ndarray, ...]]:
    """For each batch: lengths and bytes of paths, labels of each row, labels, frames, entries.

    Counts the statuses of the rows of the split.
    """
    has_entries = {*ENTRY_COLUMNS} <= {*file.schema_arrow.names}
    columns = [*COLUMNS, *(ENTRY_COLUMNS if has_entries else ())]
    for batch in read_batches(file, columns):
        status = _strings(batch, "status")
        chosen = np.ones(len(status), bool) if not part else _strings(batch, "split") == part
        names, counts = np.unique(status[chosen], return_counts=True)
        statuses.update(dict(zip(names.tolist(), counts.tolist(), strict=True)))
        rows = np.flatnonzero(chosen & (status == OK))
        ok = batch.take(rows)
        path = ok.column("path")
        offsets = np.frombuffer(path.buffers()[1], np.int32)[: len(rows) + 1]
        label = ok.column("labels")
        yield (
            np.diff(offsets),
            np.frombuffer(path.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]],
            label.value_lengths().to_numpy(),
            label.flatten().to_numpy(),
            *(ok.column(name).to_numpy() for name in FRAME_COLUMNS),
            *(_entries(ok) if has_entries else _no_entries(len(rows))),
        )


def _entries(batch: Any) -> tuple[np.ndarray, ...]:
    """The number of entries of each row, their frames, their times."""
    frames, times = (batch.column(name) for name in ENTRY_COLUMNS)
    counts = frames.value_lengths().to_numpy()
    return counts, frames.flatten().to_numpy(), times.flatten().to_numpy()


def _no_entries(rows: int) -> tuple[np.ndarray, ...]:
    return np.zeros(rows, np.int32), np.empty(0, np.int32), np.empty(0, np.int64)


def _strings(batch: Any, name: str) -> np.ndarray:
    """A column of few different strings."""
    coded = batch.column(name).dictionary_encode()
    return np.array(coded.dictionary.to_pylist())[coded.indices.to_numpy()]


def _renumbered(
    source: SplitSource,
    listed: tuple[str, ...],
    wanted: tuple[str, ...],
    labels: np.ndarray,
    settings: SettingNames,
) -> np.ndarray:
    """Labels that count `listed`, as numbers that count `wanted`; matched by name in NFC."""
    number = {nfc(name): i for i, name in enumerate(wanted)}
    table = np.array([number.get(nfc(name), -1) for name in listed], np.int64)
    numbers = table[labels]
    if (numbers < 0).any():
        name = listed[labels[np.flatnonzero(numbers < 0)[0]]]
        raise UserError(
            f"{source.path} has the class {name!r}, which is none of the {len(wanted)} classes; "
            f"correct {settings.classes}"
        )
    return numbers


def _counts(statuses: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in left_out(statuses).items())
