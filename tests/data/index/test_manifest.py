import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nlnet.data.index.manifest import (
    ManifestHeader,
    ManifestRow,
    VideoFacts,
    file_digest,
    read_manifest_rows,
    write_manifest,
)
from nlnet.data.index.read import read_index
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


@pytest.mark.slow
def test_a_million_rows_cost_little(tmp_path: Path):
    """Less than 300 MB above the imports and 2 s of CPU time, for a split of a million videos, and
    for the first keys of a training and of an evaluation."""
    import pyarrow
    from pyarrow import parquet

    facts = replace(FACTS, key_frames=tuple(range(0, 300, 12)), key_times=tuple(range(25)))
    rows = [replace(row(i, label=i % 2), facts=facts) for i in range(1000)]
    write_manifest(tmp_path / "m.parquet", HEADER, rows)
    table = parquet.read_table(tmp_path / "m.parquet")
    table = pyarrow.concat_tables([table] * 1000)
    paths = [f"train/some class name/{i:011}.mp4" for i in range(1_000_000)]
    at = table.schema.get_field_index("path")
    table = table.set_column(at, "path", pyarrow.array(paths))
    parquet.write_table(table, tmp_path / "m.parquet", row_group_size=65_536)
    del table, paths
    # The highest resident memory. (ru_maxrss would begin with that of the parent process.)
    code = (
        "import re, time, sys\n"
        "from pathlib import Path\n"
        "import pyarrow.parquet\n"
        "from nlnet.data.index.read import read_index\n"
        "from nlnet.data.order import EpochOrder, EvaluationOrder\n"
        "def peak():\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before, start = peak(), time.process_time()\n"
        "index = read_index(Path(sys.argv[1]), 'm.parquet#train')\n"
        "parts = dict(rank=0, world_size=1)\n"
        "order = EpochOrder(len(index), seed=0, batch_size=8, accumulate=1, **parts)\n"
        "keys = [next(iter(order)), next(iter(EvaluationOrder(len(index), **parts)))]\n"
        "print(len(index), time.process_time() - start, peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    count, seconds, kilobytes = done.stdout.split()
    assert int(count) == 1_000_000
    assert float(seconds) < 2 and int(kilobytes) < 300_000, done.stdout
