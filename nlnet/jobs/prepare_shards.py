"""Write the videos of a manifest into shards, and test shards again."""

import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nlnet.data.index.files import SHARDS_SUFFIX
from nlnet.data.index.manifest import (
    OK,
    ManifestHeader,
    ManifestRow,
    is_manifest,
    open_manifest,
    read_manifest_header,
)
from nlnet.data.prepare.probe_frames import FRAMES
from nlnet.data.shards.folder import SHARD_MANIFEST, broken_members, write_shard_folder
from nlnet.errors import UsageError, UserError
from nlnet.jobs.prepare_summary import training_words

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def shard_size(text: str) -> int:
    """The bytes of a size such as 500MB; raises UsageError for another text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(KB|MB|GB)", text.strip().upper())
    if match is None or not float(match[1]):
        raise UsageError(f"--shards={text} is not a size, as in 500MB or 1GB")
    return int(float(match[1]) * UNITS[match[2]])


def write_shards(
    manifest: Path, header: ManifestHeader, rows: Sequence[ManifestRow], videos: Path, size: int
) -> None:
    """Write the usable videos of a manifest into shards beside it, and print where they are.

    Raises UserError for a folder of frames, if a file has changed since it was measured, and if the
    disk is full.
    """
    for row in rows:
        if row.facts.status == OK and row.facts.container == FRAMES:
            raise UserError(
                f"{videos / row.path} is a folder of frames, and shards hold video files; leave "
                "--shards out"
            )
    folder = manifest.with_suffix(SHARDS_SUFFIX)
    bar = partial(tqdm, unit="shard", disable=not sys.stderr.isatty(), leave=False)
    done = write_shard_folder(folder, header, rows, videos, size, bar)
    new = f", {done.new} of them written now" if done.new < done.shards else ""
    print(f"{folder}: {done.shards} shards of {done.size:,} bytes{new}")
    out = folder / SHARD_MANIFEST
    print(f"{out}: {len(rows)} rows, SHA-256 {done.digest[:16]}")
    splits = list(dict.fromkeys(row.split for row in rows if row.facts.status == OK))
    print(f"train from the shards with: {training_words(folder, out, splits)}")


def describes_shards(path: Path) -> bool:
    """Whether a file is a manifest of shards."""
    is_one = path.is_file() and is_manifest(path)
    return is_one and bool(read_manifest_header(path, open_manifest(path)).shards)


def check_shards(manifest: Path, folder: Path) -> None:
    """Compare each video in shards with its SHA-256, and print what is wrong.

    Raises UserError if a video is not as it was written.
    """
    bad = count = 0
    failures = broken_members(manifest, folder)
    for failure in tqdm(failures, unit="video", disable=not sys.stderr.isatty(), leave=False):
        count += 1
        if failure is not None:
            bad += 1
            tqdm.write(f"{failure.path}: {failure.cause}", file=sys.stdout)
    print(f"{count - bad} of {count} videos are as they were written")
    if bad:
        raise UserError(f"{bad} of the videos of {manifest} cannot be used; copy the shards again")
