"""What is in the tar files, as other programs read them."""

import hashlib
import io
import json
import tarfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from webdataset.tariterators import group_by_keys, tar_file_expander

from nlnet.data.index.manifest import read_manifest_rows
from tests.data.shards.conftest import VIDEOS, Both


def test_tar_files_hold_the_bytes_where_the_manifest_says(prepared: Path):
    folder = prepared / "manifest.shards"
    header, rows = read_manifest_rows(folder / "manifest.parquet")
    _, files = read_manifest_rows(prepared / "manifest.parquet")
    assert len(header.shards) >= 4 and len(rows) == len(files) == len(VIDEOS) + 1
    for record in header.shards:
        assert (folder / record.name).stat().st_size == record.size <= 25_000
    for row, file in zip(rows, files, strict=True):
        assert row.facts == file.facts and (row.labels, row.split) == (file.labels, file.split)
        if row.facts.status != "ok":
            assert row == file
            continue
        shard, _, name = row.path.partition("/")
        assert shard == row.shard and shard.startswith(row.split)
        with tarfile.open(folder / shard) as tar:
            member = tar.getmember(name)
            assert (member.offset_data, member.size) == (row.offset, row.facts.size)
            taken = tar.extractfile(member)
            assert taken is not None
            assert taken.read() == (prepared / file.path).read_bytes()


def test_names_are_those_of_the_files_and_differ_before_their_dot(prepared: Path):
    _, rows = read_manifest_rows(prepared / "manifest.shards/manifest.parquet")
    names = [row.path.partition("/")[2] for row in rows if row.shard]
    assert "train/a/0.mkv" in names and "train/a/0_2.mp4" in names
    assert "train/a/two_dots.avi" in names and "train/a/two_dots_2.webm" in names
    assert "train/b/é 'ü\".mp4" in names
    assert len({name.partition(".")[0] for name in names}) == len(names) == len(VIDEOS)


def test_webdataset_reads_the_samples(prepared: Path):
    folder = prepared / "manifest.shards"
    _, rows = read_manifest_rows(folder / "manifest.parquet")
    rows = [row for row in rows if row.facts.status == "ok"]
    with ExitStack() as stack:  # WebDataset itself leaves the files to the garbage collector
        sources = [
            {"url": str(path), "stream": stack.enter_context(path.open("rb"))}
            for path in sorted(folder.glob("*.tar"))
        ]
        samples = list(group_by_keys(tar_file_expander(sources)))
    assert len(samples) == len(rows)
    for sample, row in zip(samples, rows, strict=True):
        name = row.path.partition("/")[2]
        key, suffix = name.rsplit(".", 1)
        assert sample["__key__"] == key
        assert hashlib.sha256(sample[suffix]).hexdigest() == row.facts.sha256
        notes = json.load(io.BytesIO(sample["json"]))
        assert notes["labels"] == list(row.labels) and notes["end_frame"] == row.end_frame
        assert notes["class_names"] == [("a", "b")[label] for label in row.labels]
        assert (prepared / notes["path"]).stat().st_size == row.facts.size


def test_the_split_is_that_of_the_files(both: Both):
    files, shards = both.files, both.shards
    assert shards.class_names == files.class_names and shards.remarks == files.remarks
    assert np.array_equal(shards.labels, files.labels)
    assert files.frames is not None and shards.frames is not None
    for mine, theirs in zip(files.frames[:5], shards.frames[:5], strict=True):
        assert np.array_equal(mine, theirs)
    for i in range(len(files)):
        file = shards.open(i)
        assert file is not None and files.open(i) is None
        assert file.read() == files.path(i).read_bytes()
        assert shards.path(i).parent.parent.parent.suffix == ".tar"
