"""Shards are written whole or not at all, and the same command continues."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from nlnet.data.index.manifest import read_manifest_rows
from nlnet.data.shards.layout import ShardPlan, plan_shards
from nlnet.data.shards.write import check_space, is_written, write_shard
from nlnet.errors import UsageError, UserError
from tests.data.shards.conftest import shards_of

PROGRAM = """
import sys
from pathlib import Path
from nlnet.data.index.manifest import read_manifest_rows
from nlnet.data.shards.folder import write_shard_folder
root = Path(sys.argv[1])
header, rows = read_manifest_rows(root / "manifest.parquet")
write_shard_folder(root / "manifest.shards", header, rows, root, 15_000)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def files(prepared: Path, tmp_path: Path) -> Path:
    """The videos and their manifest, without shards."""
    root = Path(shutil.copytree(prepared, tmp_path / "files"))
    shutil.rmtree(root / "manifest.shards")
    return root


def test_a_killed_command_leaves_whole_shards_and_continues(files: Path, prepared: Path):
    """A FIFO in place of a video holds the command in the middle of a shard."""
    held = files / "train/b/1.avi"
    data = held.read_bytes()
    held.unlink()
    os.mkfifo(held)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(files)])
    folder = files / "manifest.shards"
    end = time.monotonic() + 120
    with held.open("wb"):  # waits until the command reads the video
        assert process.poll() is None and time.monotonic() < end
        process.send_signal(signal.SIGKILL)
        process.wait()
    whole = contents(prepared / "manifest.shards")
    found = contents(folder)
    (partial,) = [name for name in found if name.endswith(".partial")]
    del found[partial]
    assert 0 < len(found) < len(whole) and found.items() <= whole.items()
    held.unlink()
    held.write_bytes(data)
    times = {name: (folder / name).stat().st_mtime_ns for name in found}
    subprocess.run([sys.executable, "-c", PROGRAM, str(files)], check=True)
    assert contents(folder) == whole
    assert times == {name: (folder / name).stat().st_mtime_ns for name in found}


def test_only_what_changed_is_written_again(files: Path, capsys: pytest.CaptureFixture[str]):
    folder = shards_of(files)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    shards_of(files)
    assert ", 0 of them written now" in capsys.readouterr().out
    shutil.copy(files / "val/b/1.mp4", files / "val/a/0.webm")
    os.truncate(folder / "train-000001.tar", 5000)
    shards_of(files)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    changed = {name for name in after if after[name] != before.get(name)}
    assert "train-000001.tar" in changed and "train-000000.tar" not in changed
    assert {name for name in changed if name.startswith("val")}


def test_shards_that_are_not_needed_any_more_are_removed(files: Path):
    folder = shards_of(files)
    many = len([*folder.glob("*.tar")])
    (folder / "train-999999.tar").write_text("of the user")
    shards_of(files, "1MB")
    assert {path.name for path in folder.iterdir()} == {
        *("train-000000.tar", "val-000000.tar", "train-999999.tar", "manifest.parquet")
    }
    assert many > 4


@pytest.mark.parametrize("change", ["bytes", "length", "gone"])
def test_a_file_that_changed_since_it_was_measured_is_named(change: str, files: Path):
    header, rows = read_manifest_rows(files / "manifest.parquet")
    (plan, *_), _ = plan_shards(header, rows, 10**9)
    path = files / plan.videos[1].row.path
    data = path.read_bytes()
    path.unlink()
    if change != "gone":
        path.write_bytes(data[:-1] + (b"x" if change == "bytes" else b""))
    out = files / "out"
    out.mkdir()
    with pytest.raises(UserError, match="run the command again") as error:
        write_shard(out, plan, files)
    assert str(path) in str(error.value) and not [*out.iterdir()]
    assert not is_written(out, plan)


def test_the_disk_must_have_space(tmp_path: Path):
    with pytest.raises(UserError, match="need 1,000,000,000,000,000,000 bytes"):
        check_space(tmp_path, [ShardPlan("train-000000.tar", size=10**18)])


def test_a_folder_that_cannot_be_written_is_named(files: Path):
    (files / "manifest.shards").write_text("a file")
    with pytest.raises(UserError, match=r"manifest\.shards: cannot be written"):
        shards_of(files)


def test_folders_of_frames_are_refused(tmp_path: Path):
    folder = tmp_path / "train" / "a" / "video"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (32, 32)).save(folder / f"img_{i:05d}.jpg")
    with pytest.raises(UserError, match="video is a folder of frames, and shards hold video files"):
        shards_of(tmp_path)


@pytest.mark.parametrize("size", ["", "0GB", "1", "-1GB", "many", "1TB"])
def test_sizes_are_numbers_with_a_unit(size: str, files: Path):
    with pytest.raises(UsageError, match="is not a size, as in 500MB or 1GB"):
        shards_of(files, size)
    assert not (files / "manifest.shards").exists()
