"""Prepare a data set: read its annotations, find and measure its videos, write a manifest."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nlnet.checks import at_least, one_of
from nlnet.data.index.labels import read_class_names
from nlnet.data.index.manifest import (
    OK,
    ManifestHeader,
    VideoFacts,
    read_manifest_rows,
    require_parquet,
    write_manifest,
)
from nlnet.data.prepare.copies import CopyForm, CopyTask
from nlnet.data.prepare.data_set import OPTIONS, DataFolder, DataSet
from nlnet.data.prepare.findings import find_problems
from nlnet.data.prepare.formats.all import DATA_SETS
from nlnet.data.prepare.measure import FactsFile, Known, measure_files, still_valid
from nlnet.data.prepare.probe import LEVELS
from nlnet.data.prepare.rows import make_rows, printable
from nlnet.data.prepare.suspects import read_suspects
from nlnet.errors import UsageError, UserError
from nlnet.jobs.prepare_copies import CopyOptions, begin_copies, make_copies, run_copies
from nlnet.jobs.prepare_shards import check_shards, describes_shards, shard_size, write_shards
from nlnet.jobs.prepare_summary import summary_lines, training_words

Item = TypeVar("Item")
MANIFEST = "manifest.parquet"
CHECK = "check"  # the NAME that tests files again


@dataclass(frozen=True)
class PrepareOptions:
    """The options of tools/prepare.py."""

    root: Path | None = None  # the folder of the data set
    videos: Path | None = None  # the folder of its videos; the root by default
    annotations: Sequence[Path] = ()  # the files to read; found below the root by default
    classes: Path | None = None  # a file with one class name in each line
    split_number: int = 1
    out: Path | None = None  # the manifest
    verify: str = "packets"
    clip: tuple[int, int] = (8, 8)  # T frames with stride tau, to name shorter videos
    workers: int | None = None
    time_limit: float = 600.0  # seconds for one file
    shards: str | None = None  # the size of a shard, as in 1GB; None: no shards
    copies: CopyOptions = field(default_factory=CopyOptions)


def run_prepare(name: str, suspects: Path | None, clip: str | None, **words: Any) -> None:
    """Do what the words of tools/prepare.py say; a word that is None has its default.

    Raises UsageError for a wrong word.
    """
    given = {key: value for key, value in words.items() if value is not None}
    if clip is not None:
        match = re.fullmatch(r"(\d+)x(\d+)", clip)
        if match is None:
            raise UsageError(f"--clip={clip} is not frames x stride, as in 8x8")
        given["clip"] = int(match[1]), int(match[2])
    copies = {each.name: given.pop(each.name) for each in fields(CopyOptions) if each.name in given}
    options = PrepareOptions(**given, copies=CopyOptions(**copies))
    _check(options)
    if name != CHECK:
        if suspects is not None:
            raise UsageError(f"LIST={suspects} has a meaning after check only; remove it")
        prepare(name, options)
    elif suspects is None:
        raise UsageError("check wants a list of files; give check LIST")
    else:
        check_suspects(suspects, options)


def prepare(name: str, options: PrepareOptions) -> None:
    """Prepare the data set `name`, and print what was found.

    Raises UserError for a mistake in the annotations, and if no video can be used.
    """
    read = one_of("NAME", name, DATA_SETS)
    require_parquet()
    if options.root is None:
        raise UsageError("--root is not set; give the folder of the data set, --root DIR")
    videos = options.videos or options.root
    out = options.out or options.root / MANIFEST
    for folder in (options.root, videos, out.parent):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; correct --root, --videos or --out")
    form = options.copies.form()
    if form is not None:
        begin_copies(options.copies, videos)
    data = read(DataFolder(options.root, videos, tuple(options.annotations), options.split_number))
    header = ManifestHeader(_class_names(data, options.classes), data.multi_label)
    print(f"{name}: {_counts(data)}; {len(header.class_names)} classes")
    for remark in (remark for split in data.splits.values() for remark in split.remarks):
        print(printable(remark))
    partial = FactsFile(out.with_name(f"{out.name}.partial"), videos)
    facts: Known = _measure(data, partial, {**_known(out, videos), **partial.read()}, options)
    rows = make_rows(data, header.class_names, videos, facts)
    digest = write_manifest(out, header, rows)
    partial.remove()
    if form is not None:
        data, facts, videos, out = _copy(data, facts, form, videos, out, options)
        rows = make_rows(data, header.class_names, videos, facts)
        digest = write_manifest(out, header, rows)
    frames, stride = options.clip
    found = find_problems(header, rows, (frames - 1) * stride + 1)
    for line in summary_lines(header, rows, found):
        print(line)
    print(f"{out}: {len(rows)} rows, SHA-256 {digest[:16]}")
    if not found.usable:
        raise UserError(f"none of the {len(rows)} videos can be used; correct --root or --videos")
    print(f"train with: {training_words(videos, out, list(found.usable))}")
    if not {"val", "test"} & set(found.usable):
        print("no split to validate on has labels: set data.val to a list or manifest with labels")
    if options.shards is not None:
        write_shards(out, header, rows, videos, shard_size(options.shards))


def check_suspects(path: Path, options: PrepareOptions) -> None:
    """Decode all frames of the files that a list names, and print what is wrong with each.

    The videos of a manifest of shards are compared with their digests. Raises UserError if a file
    is still bad.
    """
    if describes_shards(path):
        check_shards(path, options.videos or path.parent)
        return
    paths = read_suspects(path, options.videos or options.root)
    if not paths:
        print(f"{path}: all rows are ok, so there is no row to test again")
        return
    bad = 0
    for file, facts in _bar(paths, _measured(paths, options, "full")):
        is_bad = facts.status != OK
        bad += is_bad
        what = f"{facts.status}: {facts.cause}" if is_bad else f"ok, {facts.num_frames} frames"
        tqdm.write(f"{printable(str(file))}: {what}", file=sys.stdout)
    print(f"{len(paths) - bad} of {len(paths)} files are ok")
    if bad:
        raise UserError(f"{bad} of the files of {path} cannot be used; replace or remove them")


def _check(options: PrepareOptions) -> None:
    one_of("--verify", options.verify, dict.fromkeys(LEVELS))
    at_least("--split-number", options.split_number, 1)
    at_least("--time-limit", options.time_limit, 1)
    if options.shards is not None:
        shard_size(options.shards)
        if options.copies.frames is not None:
            raise UsageError("--shards hold video files, and --frames writes images; remove one")
    if options.workers is not None:
        at_least("--workers", options.workers, 0)


def _class_names(data: DataSet, file: Path | None) -> tuple[str, ...]:
    return data.names() if file is None else read_class_names(file, OPTIONS)


def _counts(data: DataSet) -> str:
    return ", ".join(f"{split} {len(each.entries)}" for split, each in data.splits.items())


def _known(manifest: Path, videos: Path) -> Known:
    """The facts in an older manifest; a file that is not one must not be replaced."""
    if not manifest.exists():
        return {}
    _, rows = read_manifest_rows(manifest)
    return {videos / row.path: row.facts for row in rows if row.path}


def _measure(
    data: DataSet, partial: FactsFile, known: Known, options: PrepareOptions
) -> dict[Path, VideoFacts]:
    """The facts of all files; those that are known and have not changed are not read again."""
    entries = (entry for split in data.splits.values() for entry in split.entries)
    paths = list({entry.path: None for entry in entries if entry.path is not None})
    facts = still_valid(known, paths, options.verify)
    todo = [path for path in paths if path not in facts]
    if facts:
        print(f"{len(facts)} of {len(paths)} files have been measured before")
    for path, each in _bar(todo, _measured(todo, options, options.verify)):
        facts[path] = each
        partial.add(path, each)
    return facts


def _copy(
    data: DataSet, facts: Known, form: CopyForm, videos: Path, out: Path, options: PrepareOptions
) -> tuple[DataSet, Known, Path, Path]:
    """Copy the videos; the data set of the copies, their facts, their folder and its manifest."""
    folder = videos if options.copies.to is None else options.copies.to
    manifest = out if options.copies.to is None else folder / MANIFEST

    def run(tasks: Sequence[CopyTask]) -> Iterator[tuple[CopyTask, VideoFacts]]:
        results = run_copies(tasks, num_workers=_workers(options), time_limit=options.time_limit)
        yield from _bar(tasks, results)

    print(f"copies are written to {folder}; an interrupted command goes on where it was")
    copies, found = make_copies(
        data,
        facts,
        _known(manifest, folder),
        options.copies,
        form=form,
        videos=videos,
        verify=options.verify,
        run=run,
    )
    return copies, found, folder, manifest


def _workers(options: PrepareOptions) -> int:
    return len(os.sched_getaffinity(0)) if options.workers is None else options.workers


def _measured(
    paths: Sequence[Path], options: PrepareOptions, verify: str
) -> Iterator[tuple[Path, VideoFacts]]:
    return measure_files(
        paths, verify=verify, num_workers=_workers(options), time_limit=options.time_limit
    )


def _bar(
    items: Sequence[Item], results: Iterable[tuple[Item, VideoFacts]]
) -> Iterable[tuple[Item, VideoFacts]]:
    """The results, with a progress bar and the time that is left, if there is a terminal."""
    return tqdm(
        results, total=len(items), unit="video", disable=not sys.stderr.isatty(), leave=False
    )
