"""Videos in shards are those of the files, in all processes."""

import io
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nlnet.data.clip_sampling import ClipShape, RandomClip, choose_protocol
from nlnet.data.dataset import VideoDataset
from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.probing import PROBES, probe_files
from nlnet.data.decoding.reader import DecodeError
from nlnet.data.index.read import read_index
from nlnet.data.order import SampleKey
from nlnet.data.shards import members, store
from nlnet.data.transforms import EvalTransform
from tests.data.shards.conftest import Both


@pytest.mark.parametrize("whole", [members.WHOLE, 1000])
def test_frames_are_those_of_the_file(both: Both, whole: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(members, "WHOLE", whole)  # a larger video is read in parts
    monkeypatch.setattr(members, "PART", 4096)
    for i, is_known in product(range(len(both.files)), (True, False)):
        facts = {"known": both.shards.known(i)} if is_known else {}
        with (
            open_video(both.files.path(i)) as expected,
            open_video(both.shards.path(i), both.shards.open(i), **facts) as found,
        ):
            assert (found.num_frames, found.rate) == (expected.num_frames, expected.rate)
            for numbers in ([25, 3, 3, 14], [29], range(found.num_frames), [0]):
                assert np.array_equal(found.read(numbers), expected.read(numbers))


def test_a_part_is_a_file(both: Both, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(members, "WHOLE", 0)
    plain, part = io.BytesIO(both.files.path(0).read_bytes()), both.shards.open(0)
    assert part is not None and part.seekable() and part.name == str(both.shards.path(0))
    rng = np.random.default_rng(0)
    size = len(plain.getvalue())
    for _ in range(200):
        offset, length = int(rng.integers(-size, 2 * size)), int(rng.integers(0, 5000))
        whence = int(rng.integers(0, 3))
        start = {0: 0, 1: plain.tell(), 2: size}[whence] + offset
        if 0 <= start <= 2 * size:
            assert part.seek(offset, whence) == plain.seek(offset, whence)
        assert part.read(length) == plain.read(length) and part.tell() == plain.tell()


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same_samples(context: str, prepared: Path):
    """Also after this process has opened the shards, whose files a forked worker inherits."""
    protocol, rule = choose_protocol("dense", "loop")

    def data(root: Path) -> VideoDataset:
        return VideoDataset(
            read_index(root, "manifest.parquet#train"),
            RandomClip(protocol, ClipShape(4, 2), rule),
            EvalTransform(32, 32, 1),
            open_video=open_video,
            seed=1,
            replacements=0,
        )

    files, shards = data(prepared), data(prepared / "manifest.shards")
    keys = [SampleKey(epoch, i) for epoch in range(2) for i in range(len(files))]
    expected = [files[key] for key in keys]
    here = [shards[key] for key in keys]
    workers = 2 if context == "fork" else 1
    loader = DataLoader(
        shards, batch_size=None, sampler=keys, num_workers=workers, multiprocessing_context=context
    )
    for found in (here, list(loader)):
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one.clips[0].video, other.clips[0].video)


def test_a_pickled_index_opens_its_own_files(prepared: Path):
    index = read_index(prepared / "manifest.shards", "manifest.parquet#val")
    first = index.open(0).read()
    copy = pickle.loads(pickle.dumps(index))
    assert copy.members._store._open.files == {} != index.members._store._open.files
    assert copy.open(0).read() == first != b""


def test_few_files_are_open(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    monkeypatch.setattr(store, "MOST_OPEN", 2)
    before = descriptors()
    index = read_index(prepared / "manifest.shards", "manifest.parquet#train")
    paths = [index.path(i) for i in range(len(index))]
    assert len({path.parts[-4] for path in paths}) > 3  # shards
    for _ in range(3):
        assert probe_files(paths, PROBES["open"], index.open) == []  # in several threads
    assert descriptors() <= before + 2
    del index
    assert descriptors() == before


def test_threads_do_not_close_files_of_one_another(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "MOST_OPEN", 1)
    index = read_index(prepared / "manifest.shards", "manifest.parquet#train")
    shards = index.members._store

    def check(k: int) -> None:
        for i in range(3000):
            shards._check(shards._shards[(i + k) % len(shards._shards)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(check, range(4)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("probe", ["open", "decode"])
def test_faults_that_come_later_are_named(probe: str, copied: Path):
    index = read_index(copied, "manifest.parquet#train")
    paths = [index.path(i) for i in range(len(index))]
    assert index.members is not None
    table = index.members._table
    changed = 0
    cut = next(i for i in range(1, len(paths)) if table.shard[i] != table.shard[0])
    assert cut + 1 == len(paths) or table.shard[cut + 1] != table.shard[cut]
    with (copied / paths[changed].parts[-4]).open("r+b") as file:
        file.seek(int(table.offset[changed]) + 300)
        byte = file.read(1)[0]
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([byte ^ 8]))
    os.truncate(copied / paths[cut].parts[-4], int(table.offset[cut]) + 100)
    failures = probe_files(paths, PROBES[probe], index.open)
    assert [Path(failure.path) for failure in failures] == [paths[changed], paths[cut]]
    assert "have changed" in failures[0].cause and "bytes, not" in failures[1].cause
    for failure in failures:
        assert "copy the shard again" in failure.cause and "\n" not in failure.cause


def test_a_shard_that_vanishes_is_named(copied: Path):
    index = read_index(copied, "manifest.parquet#val")
    fresh = read_index(copied, "manifest.parquet#val")
    fresh.members._store._open.files.clear()
    shard = copied / index.path(0).parts[-4]
    shard.unlink()
    index.open(0)  # it is still open here
    with pytest.raises(DecodeError, match=r"val-000000\.tar cannot be read \(No such file"):
        fresh.open(0)
