import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlnet.clip import Failure
from nlnet.data.index.manifest import read_manifest_rows
from nlnet.data.index.read import read_index
from nlnet.errors import UsageError, UserError
from nlnet.jobs.prepare import run_prepare
from nlnet.runs.quarantine import QUARANTINE, add_to_quarantine
from tests.commands import run_python
from tests.conftest import write_gray_video
from tests.data.frame_folders import extract_frames

ROOT = Path(__file__).parents[2]


def prepare(name: str, root: Path, **words) -> None:
    """Prepare in this process."""
    words = {"suspects": None, "clip": None, "workers": 0, "root": root, **words}
    run_prepare(name, **words)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes with every kind of fault. Each video has other frames."""
    root = tmp_path_factory.mktemp("small")
    for split, count in (("train", 3), ("val", 2)):
        for c, label in enumerate(("swipe_left", "swipe_right")):
            for i in range(count):
                path = root / split / label / f"{i}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                options = {"movflags": "faststart"}
                tint = (1, c, i % 2)
                frames = 60 + 2 * i + (split == "val")
                write_gray_video(path, num_frames=frames, tint=tint, container_options=options)
    whole = (root / "train/swipe_left/0.mp4").read_bytes()
    (root / "train/swipe_left/cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (root / "train/swipe_left/empty.mp4").write_bytes(b"")
    (root / "train/swipe_right/text.mp4").write_text("no video " * 50)
    shutil.copy(root / "train/swipe_left/1.mp4", root / "train/swipe_left/1 again.mp4")
    shutil.copy(root / "train/swipe_left/2.mp4", root / "val/swipe_right/leak.mp4")
    write_gray_video(root / "train/swipe_left/short.mp4", num_frames=7)
    (root / "train/swipe_left/notes.txt").write_text("x")
    return root


@pytest.fixture
def data(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "data"))


def test_every_fault_is_counted_and_named(data: Path, capsys: pytest.CaptureFixture[str]):
    prepare("folder", data)
    said = capsys.readouterr().out
    assert "train 11, val 5; 2 classes" in said
    assert "13 of 16 videos can be used: train 8 of 11, val 5 of 5" in said
    assert "left out, unreadable: 2" in said and "the file is empty" in said
    assert "left out, cut short: 1" in said and "cut.mp4" in said
    assert "the same content twice in a split: 1" in said and "1 again.mp4" in said
    assert "the same content in two splits: 1" in said and "leak.mp4" in said
    assert "the same content with two labels: 1" in said
    assert "shorter than a clip: 1 videos, first train/swipe_left/short.mp4" in said
    assert "data.augment.flip=false" in said and "swipe_left" in said
    assert "1 files are no videos" in said
    assert "data.train=manifest.parquet#train data.val=manifest.parquet#val" in said
    header, rows = read_manifest_rows(data / "manifest.parquet")
    assert header.class_names == ("swipe_left", "swipe_right")
    assert len(rows) == 16 and {row.split for row in rows} == {"train", "val"}
    assert not (data / "manifest.parquet.partial").exists()


def test_training_rows_are_those_of_the_folder_without_the_bad_files(data: Path):
    prepare("folder", data)
    index = read_index(data, "manifest.parquet#train")
    for name in ("swipe_left/cut", "swipe_left/empty", "swipe_right/text"):
        (data / "train" / f"{name}.mp4").unlink()
    plain = read_index(data, "train")
    assert index.class_names == plain.class_names
    assert index.labels.tolist() == plain.labels.tolist()
    assert [index.path(i) for i in range(len(index))] == [plain.path(i) for i in range(len(plain))]


def test_a_second_run_measures_only_what_changed(data: Path, capsys: pytest.CaptureFixture[str]):
    prepare("folder", data)
    first = (data / "manifest.parquet").read_bytes()
    capsys.readouterr()
    prepare("folder", data)
    assert "16 of 16 files have been measured before" in capsys.readouterr().out
    assert (data / "manifest.parquet").read_bytes() == first
    shutil.copy(data / "train/swipe_left/0.mp4", data / "train/swipe_left/empty.mp4")
    prepare("folder", data)
    said = capsys.readouterr().out
    assert "15 of 16 files have been measured before" in said and "14 of 16 videos" in said
    prepare("folder", data, verify="full")  # reads all again, more thoroughly
    assert "measured before" not in capsys.readouterr().out


def test_a_killed_run_continues(data: Path, tmp_path: Path):
    """SIGKILL at any instant: the same command measures the rest, and gives the same rows."""
    prepare("folder", data, out=tmp_path / "whole.parquet")
    command = [sys.executable, str(ROOT / "tools/prepare.py"), "folder", "--root", str(data)]
    command += ["--workers", "1"]
    partial = data / "manifest.parquet.partial"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    end = time.monotonic() + 60
    while not (partial.exists() and partial.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert partial.exists() and not (data / "manifest.parquet").exists()
    with partial.open("a") as file:
        file.write('{"path": "train/swi')  # a line that was cut
    done = run_python(command[1:], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "files have been measured before" in done.stdout
    assert not partial.exists()
    assert read_manifest_rows(data / "manifest.parquet") == read_manifest_rows(
        tmp_path / "whole.parquet"
    )


def test_check_tests_suspects_again(data: Path, capsys: pytest.CaptureFixture[str]):
    prepare("folder", data)
    shutil.copy(data / "train/swipe_left/0.mp4", data / "train/swipe_left/empty.mp4")
    capsys.readouterr()
    with pytest.raises(UserError, match="2 of the files"):
        run_prepare("check", data / "manifest.parquet", None, workers=0)
    said = capsys.readouterr().out
    assert "empty.mp4: ok, 60 frames" in said and "cut.mp4: cut short" in said
    assert "1 of 3 files are ok" in said
    suspects = data / "quarantine.csv"
    suspects.write_text("path,stage,cause,count\ntrain/swipe_left/0.mp4,decode,why,3\n")
    run_prepare("check", suspects, None, workers=0, root=data)
    suspects.write_text(f"{data}/train/swipe_left/1.mp4\n{data}/val/swipe_left/1.mp4\n")
    run_prepare("check", suspects, None, workers=2)
    assert "2 of 2 files are ok" in capsys.readouterr().out


def test_folders_of_frames_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    video = write_gray_video(tmp_path / "v.mp4", num_frames=9)
    for i, name in enumerate(("run/a", "run/b", "walk/c", "walk/d")):
        folder = extract_frames(video, tmp_path / "data/train" / name)
        (folder / "img_00009.png").write_bytes((folder / f"img_0000{i + 1}.png").read_bytes())
    (tmp_path / "data/train/run/b/img_00004.png").unlink()
    (tmp_path / "data/train/walk/d/img_00004.png").write_bytes(b"no image")
    prepare("folder", tmp_path / "data")
    said = capsys.readouterr().out
    assert "3 of 4 videos can be used" in said and "9 frames in the median, 64x48" in said
    assert "a frame is missing between img_00003.png and img_00005.png" in said
    prepare("folder", tmp_path / "data", verify="full")
    assert "2 of 4 videos can be used" in capsys.readouterr().out
    _, rows = read_manifest_rows(tmp_path / "data/manifest.parquet")
    assert [row.facts.status for row in rows] == ["ok", "unreadable", "ok", "damaged"]
    facts = rows[0].facts
    assert (facts.num_frames, facts.codec, facts.container) == (9, "png", "frames")
    index = read_index(tmp_path / "data", "manifest.parquet")
    assert [index.path(i).name for i in range(2)] == ["a", "c"]
    prepare("folder", tmp_path / "data", verify="full")
    assert "3 of 4 files have been measured before" in capsys.readouterr().out
    (tmp_path / "data/train.txt").write_text("train/run/a 9 run\ntrain/walk/c 10 walk\n")
    prepare("list", tmp_path / "data")
    said = capsys.readouterr().out
    assert "1 of 2 videos" in said and "has 9 frames, but its list says 10" in said


def test_names_that_are_not_utf8_are_found_again(data: Path, capsys: pytest.CaptureFixture[str]):
    """A quarantine list of training and a manifest escape the bytes of such names."""
    folder = data / "train/swipe_left"
    good, bad = (Path(os.fsdecode(os.fsencode(folder / f"{n}caf") + b"\xe9.mp4")) for n in (1, 2))
    shutil.copy(folder / "0.mp4", good)
    bad.write_bytes(b"")
    add_to_quarantine(data, "train", [Failure(str(good), "cause"), Failure(str(bad), "cause")])
    assert "\\udce9" in (data / QUARANTINE).read_text()
    with pytest.raises(UserError, match="1 of the files"):
        run_prepare("check", data / QUARANTINE, None, workers=0)
    said = capsys.readouterr().out
    assert r"1caf\xe9.mp4: ok, 60 frames" in said and r"2caf\xe9.mp4: unreadable" in said
    prepare("folder", data)
    with pytest.raises(UserError):
        run_prepare("check", data / "manifest.parquet", None, workers=0)
    assert r"1caf\xe9.mp4: ok, 60 frames" in capsys.readouterr().out


def test_times_of_untrimmed_files_become_frames(tmp_path: Path):
    write_gray_video(tmp_path / "v.mp4", num_frames=90, fps=30)
    rows = ["label,youtube_id,time_start,time_end"]
    rows += ["run,v,0,1", "walk,v,1,3", "walk,v,7,9"]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    prepare("kinetics400", tmp_path)
    index = read_index(tmp_path, "manifest.parquet")
    assert [index.clip_range(i, 90) for i in range(len(index))] == [(0, 30), (30, 60)]
    _, listed = read_manifest_rows(tmp_path / "manifest.parquet")
    assert listed[2].facts.status == "without frames" and "7 to 9 s" in listed[2].facts.cause


def test_mistakes_are_one_line(tmp_path: Path, data: Path):
    def message(kind: type[UserError], name: str, **words) -> str:
        with pytest.raises(kind) as caught:
            prepare(name, words.pop("root", data), **words)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "hmdb51" in message(UsageError, "hmdb")
    assert "--root" in message(UsageError, "folder", root=None)
    assert "--root" in message(UserError, "folder", root=tmp_path / "absent")
    assert "--verify" in message(UsageError, "folder", verify="all")
    assert "--clip=8" in message(UsageError, "folder", clip="8")
    assert "LIST" in message(UsageError, "folder", suspects=Path("x"))
    assert "check LIST" in message(UsageError, "check")
    (data / "manifest.parquet").write_text("precious text")
    assert "manifest.parquet" in message(UserError, "folder")
    assert (data / "manifest.parquet").read_text() == "precious text"
    for path in data.rglob("*.mp4"):
        path.write_bytes(b"")
    assert "none of the 16 videos" in message(UserError, "folder", out=tmp_path / "m.parquet")


@pytest.mark.slow
def test_training_on_a_manifest_is_training_without_the_bad_files(data: Path, tmp_path: Path):
    """The same weights, and the left-out files are counted in metrics.json."""
    import torch

    prepare("folder", data)
    words = ["+experiment=folder_small", "data.num_workers=0", "data.batch_size=4"]
    words += ["trainer.epochs=null", "trainer.max_steps=2", "schedule.warmup=0", "dist.device=cpu"]

    def train(name: str, *more: str) -> dict[str, torch.Tensor]:
        command = [str(ROOT / "tools/train.py"), *words, *more, f"name={name}", f"data.root={data}"]
        done = run_python(command, tmp_path)
        assert done.returncode == 0, done.stderr
        return torch.load(tmp_path / "outputs" / name / "train" / "last.pt")["model"]

    splits = [f"data.{key}=manifest.parquet#{key}" for key in ("train", "val")]
    measured = train("manifest", *splits)
    metrics = json.loads((tmp_path / "outputs/manifest/train/metrics.json").read_text())
    assert metrics["manifests"]["train"]["left_out"] == {"unreadable": 2, "cut short": 1}
    assert metrics["manifests"]["train"]["completeness"] == pytest.approx(8 / 11)
    assert len(metrics["manifests"]["val"]["sha256"]) == 64
    for name in ("swipe_left/cut", "swipe_left/empty", "swipe_right/text"):
        (data / "train" / f"{name}.mp4").unlink()
    plain = train("plain")
    assert measured.keys() == plain.keys()
    assert all(torch.equal(measured[key], plain[key]) for key in plain)
