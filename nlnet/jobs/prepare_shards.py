"""Write the videos of a manifest into shards, and a manifest of the shards."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from nlnet.data.index.files import SHARDS_SUFFIX
from nlnet.data.index.manifest import (
    OK,
    ManifestHeader,
    ManifestRow,
    read_manifest_rows,
    write_manifest,
)
from nlnet.data.prepare.probe_frames import FRAMES
from nlnet.data.shards.layout import plan_shards
from nlnet.data.shards.write import check_space, is_written, write_shard
from nlnet.errors import UsageError, UserError
from nlnet.files import cannot_write
from nlnet.jobs.prepare_summary import training_words

SHARD_MANIFEST = "manifest.parquet"  # in the folder of the shards
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def shard_size(text: str) -> int:
    """The bytes of a size such as 500MB; raises UsageError for another text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(KB|MB|GB)", text.strip().upper())
    if match is None or not float(match[1]):
        raise UsageError(f"--shards={text} is not a size, as in 500MB or 1GB")
    return int(float(match[1]) * UNITS[match[2]])


def write_shards(
    manifest: Path, header: ManifestHeader, rows: Sequence[ManifestRow], videos: Path, size: int
) -> Path:
    """Write the usable videos of a manifest into shards of at most `size` bytes beside it.

    Shards that a command has written before are kept. Returns the manifest of the shards. Raises
    UserError for a folder of frames, if a file has changed since it was measured, and if the disk
    is full.
    """
    for row in rows:
        if row.facts.status == OK and row.facts.container == FRAMES:
            raise UserError(
                f"{videos / row.path} is a folder of frames, and shards hold video files; leave "
                "--shards out"
            )
    folder = manifest.with_suffix(SHARDS_SUFFIX)
    out = folder / SHARD_MANIFEST
    plans, placed = plan_shards(header, rows, size)
    names = {plan.name for plan in plans}
    old = {row.name for row in read_manifest_rows(out)[0].shards} - names if out.exists() else set()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    todo = [plan for plan in plans if not is_written(folder, plan)]
    check_space(folder, todo)
    count = sum(len(plan.videos) for plan in todo)
    with tqdm(total=count, unit="video", disable=not sys.stderr.isatty(), leave=False) as bar:
        for plan in todo:
            write_shard(folder, plan, videos, lambda: bar.update() and None)
    records = tuple(plan.record() for plan in plans)
    digest = write_manifest(out, replace(header, shards=records), placed)
    for name in sorted(old):  # shards of an earlier command that nothing refers to any more
        (folder / name).unlink(missing_ok=True)
    written = f", {len(todo)} of them written now" if len(todo) < len(plans) else ""
    total = sum(plan.size for plan in plans)
    print(f"{folder}: {len(plans)} shards of {total:,} bytes{written}")
    print(f"{out}: {len(placed)} rows, SHA-256 {digest[:16]}")
    splits = list(dict.fromkeys(row.split for row in rows if row.facts.status == OK))
    print(f"train from the shards with: {training_words(folder, out, splits)}")
    return out
