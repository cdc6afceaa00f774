import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.index.manifest import (
    ManifestHeader,
    ManifestRow,
    ShardRecord,
    VideoFacts,
    file_digest,
    read_manifest_rows,
    write_manifest,
)
from nlnet.data.index.read import read_index
from nlnet.data.shards.layout import shard_head
from nlnet.errors import UserError

FACTS = VideoFacts(num_frames=50, duration=2.0, rate=25.0, key_frames=(0, 12), key_times=(0, 99))


def row(number: int, split: str = "train", status: str = "ok", label: int = 0) -> ManifestRow:
    return ManifestRow(
        path=f"clips/{number}.mp4",
        split=split,
        name=str(number),
        source=f"train.csv line {number}",
        labels=(label,),
        start_frame=5,
        end_frame=40,
        facts=replace(FACTS, status=status, cause="why" if status != "ok" else ""),
    )


ROWS = [row(1), row(2, status="cut short"), row(3, label=1), row(4, "val", label=1)]
ROWS += [row(5, status="missing"), row(6, status="missing")]
HEADER = ManifestHeader(("walk", "run"), multi_label=False)


def test_what_is_written_is_read(tmp_path: Path):
    digest = write_manifest(tmp_path / "m.parquet", HEADER, ROWS)
    assert digest == file_digest(tmp_path / "m.parquet")
    assert read_manifest_rows(tmp_path / "m.parquet") == (HEADER, ROWS)


def test_training_gets_the_rows_that_are_ok_and_counts_the_others(tmp_path: Path):
    digest = write_manifest(tmp_path / "m.parquet", HEADER, ROWS)
    index = read_index(tmp_path, "m.parquet#train", videos="videos-are-elsewhere/..")
    assert [index.path(i).name for i in range(len(index))] == ["1.mp4", "3.mp4"]
    assert index.path(0) == tmp_path / "videos-are-elsewhere/.." / "clips" / "1.mp4"
    assert index.labels.tolist() == [0, 1] and index.class_names == ("walk", "run")
    use = index.manifest
    assert use is not None
    assert (use.rows, use.used, use.sha256) == (5, 2, digest)
    assert use.left_out == {"missing": 2, "cut short": 1}
    assert use.record()["completeness"] == 0.4
    assert "2 of 5" in index.remarks[0] and "2 missing, 1 cut short" in index.remarks[0]
    assert index.clip_range(0, 50) == (5, 35)
    assert index.clip_range(0, 20) == (5, 15)  # the file is shorter now
    assert index.clip_range(0, 3) == (2, 1)


def test_readers_get_what_was_measured(tmp_path: Path):
    rows = [row(1), row(2, status="cut short"), row(3), row(4)]
    entries = [((12, 24), (100, 200)), ((6,), (60,)), ((), ()), ((8, 16, 30), (-5, 90, 2**40))]
    for i, (frames, times) in enumerate(entries):
        facts = {"entry_frames": frames, "entry_times": times, "size": i, "modified": 10**18 + i}
        rows[i] = replace(rows[i], facts=replace(rows[i].facts, **facts))
    write_manifest(tmp_path / "m.parquet", HEADER, rows)
    index = read_index(tmp_path, "m.parquet")
    for part, numbers in (
        (index, [0, 2, 3]),
        (index.select(np.array([2, 0])), [3, 0]),
        (index.select(np.array([1])), [2]),
    ):
        for i, number in enumerate(numbers):
            known = part.known(i)
            assert known is not None
            assert known[:3] == (number, 10**18 + number, 50)
            assert (tuple(known.entry_frames), tuple(known.entry_times)) == entries[number]


def test_files_that_changed_are_said(tmp_path: Path):
    """Only where it costs time: files with entries."""
    (tmp_path / "clips").mkdir()
    rows = []
    for number in range(4):
        path = tmp_path / "clips" / f"{number}.mp4"
        path.write_bytes(b"abc")
        status = path.stat()
        facts = {"size": status.st_size, "modified": status.st_mtime_ns, "status": "ok"}
        if number < 2:
            facts |= {"entry_frames": (12,), "entry_times": (12,)}
        rows.append(replace(row(number), facts=replace(FACTS, **facts)))
    write_manifest(tmp_path / "m.parquet", HEADER, rows)
    assert read_index(tmp_path, "m.parquet").remarks == ()
    for number in (1, 3):
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(b"abcd")
    (remark,) = read_index(tmp_path, "m.parquet").remarks
    assert "1 of 2 files" in remark and str(tmp_path / "clips" / "1.mp4") in remark


def test_manifests_of_the_first_release_have_no_entries(tmp_path: Path):
    from pyarrow import parquet

    write_manifest(tmp_path / "m.parquet", HEADER, ROWS)
    table = parquet.read_table(tmp_path / "m.parquet")
    parquet.write_table(
        table.drop_columns(["entry_frames", "entry_times"]), tmp_path / "old.parquet"
    )
    known = read_index(tmp_path, "old.parquet#train").known(1)
    assert known is not None and known.num_frames == 50 and not known.entry_frames.size
    assert read_manifest_rows(tmp_path / "old.parquet") == (HEADER, ROWS)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos-are-elsewhere").mkdir()
    return tmp_path


@pytest.fixture(autouse=True)
def _videos(videos: Path) -> None:
    """Every test has the folder."""


def test_classes_are_matched_by_name(tmp_path: Path):
    write_manifest(tmp_path / "m.parquet", HEADER, ROWS)
    index = read_index(tmp_path, "m.parquet#train", class_names=("jump", "run", "walk"))
    assert index.labels.tolist() == [2, 1]
    with pytest.raises(UserError, match="'run', which is none of the 2 classes"):
        read_index(tmp_path, "m.parquet#train", class_names=("jump", "walk"))


def test_several_labels(tmp_path: Path):
    header = ManifestHeader(("a", "b", "c"), multi_label=True)
    labels: list[tuple[int, ...]] = [(0, 2), (), (1,)]
    rows = [replace(row(i), labels=each) for i, each in enumerate(labels)]
    write_manifest(tmp_path / "m.parquet", header, rows)
    index = read_index(tmp_path, "m.parquet")
    assert index.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    turned = read_index(tmp_path, "m.parquet", class_names=("c", "b", "a"))
    assert np.array_equal(turned.labels, index.labels[:, ::-1])


def test_mistakes_are_one_line(tmp_path: Path):
    def message(split: str) -> str:
        with pytest.raises(UserError) as caught:
            read_index(tmp_path, split)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    write_manifest(tmp_path / "m.parquet", HEADER, ROWS)
    assert "m.parquet#train or m.parquet#val" in message("m.parquet")
    assert "no split 'test'" in message("m.parquet#test")
    write_manifest(tmp_path / "bad.parquet", HEADER, [row(1, status="missing")])
    assert "1 missing" in message("bad.parquet")
    data = (tmp_path / "m.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    assert "not a whole Parquet file" in message("cut.parquet")
    write_manifest(tmp_path / "new.parquet", replace(HEADER, version=9), ROWS)
    assert "version 9" in message("new.parquet")


def test_a_table_that_is_no_manifest_is_named(tmp_path: Path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"path": ["a.mp4"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"not a manifest.*tools/prepare\.py"):
        read_index(tmp_path, "other.parquet")


ROWS_OF_TEST = 1_000_000
# Prints the rows, CPU time and memory of a training loader with a worker, above the imports.
LOADER = r"""
import re, sys, time
from pathlib import Path
import pyarrow.parquet
import nlnet.data.augmentation.changes
from nlnet.config import ClipConfig, DataConfig
from nlnet.data.build import build_train_loader
from nlnet.errors import UserError

def kilobytes(name, file="/proc/self/status"):
    return int(re.search(name + r":\s+(\d+)", Path(file).read_text())[1])

cfg = DataConfig(root=sys.argv[1], train="m.parquet#train", batch_size=8, num_workers=1)
cfg.clip = ClipConfig(num_frames=4, frame_stride=2, crop_size=32)
before, start = kilobytes("VmHWM"), time.process_time()
loader = build_train_loader(cfg, seed=0, accumulate=1, rank=0, world_size=1)
try:
    next(loader.at(0))
except UserError as error:  # there are no videos
    assert "too many videos cannot be read" in str(error)
seconds, peak = time.process_time() - start, kilobytes("VmHWM") - before
(worker,) = loader._batches._iterator._workers
own = kilobytes("Private_Dirty", f"/proc/{worker.pid}/smaps_rollup")
print(len(loader.index), seconds, peak, own)
"""


@pytest.mark.slow
def test_a_million_rows_cost_little(tmp_path: Path):
    """Less than 250 MB above the imports and 2 s of CPU time, for a training loader of a million
    videos in shards (files need less); a worker shares the memory of the index."""
    write_million_rows(tmp_path)
    # The highest resident memory. (ru_maxrss would begin with that of the parent process.)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path)], capture_output=True, text=True, check=True
    )
    count, seconds, main, worker = map(float, done.stdout.split())
    assert count == ROWS_OF_TEST
    assert seconds < 2 and main < 250_000 and worker < 60_000, done.stdout


def write_million_rows(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    shard = ShardRecord("train-000000.tar", len(shard_head("a" * 64)), "a" * 64)
    rows = [replace(row(i, label=i % 2), shard=shard.name) for i in range(1000)]
    write_manifest(folder / "m.parquet", replace(HEADER, shards=(shard,)), rows)
    table = parquet.read_table(folder / "m.parquet")
    table = pyarrow.concat_tables([table] * (ROWS_OF_TEST // 1000))
    columns = {
        "path": [f"train/some class name/{i:011}.mp4" for i in range(ROWS_OF_TEST)],
        "sha256": [f"{i * 2**100 + i:064x}" for i in range(ROWS_OF_TEST)],
        "modified": range(10**18, 10**18 + ROWS_OF_TEST),
    }
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pyarrow.array(values))
    parquet.write_table(table, folder / "m.parquet", row_group_size=65_536)
    (folder / shard.name).write_bytes(shard_head(shard.digest))
