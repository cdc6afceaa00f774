"""Copies have the frames and times of their originals, or are named as missing."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.stream import PyAVStream
from nlnet.data.encoding import VideoWriter
from nlnet.data.index.manifest import ManifestRow, read_manifest_rows
from nlnet.data.index.read import read_index
from nlnet.errors import UsageError, UserError
from nlnet.jobs.prepare import run_prepare
from tests.conftest import write_gray_video
from tests.data.decoding.videos import (
    FORMATS,
    moving_frames,
    packets,
    write_damaged,
    write_moving_video,
)
from tests.data.frame_folders import extract_frames

ROOT = Path(__file__).parents[2]
NO_WORDS = dict.fromkeys(("suspects", "clip", "resize", "gop", "crf", "frames", "to"))


def prepare(root: Path, name: str = "folder", **words) -> None:
    """Prepare in this process."""
    run_prepare(name, **{**NO_WORDS, "in_place": False, "workers": 0, "root": root, **words})


def rows_of(folder: Path) -> dict[str, ManifestRow]:
    return {Path(row.path).name: row for row in read_manifest_rows(folder / "manifest.parquet")[1]}


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as reader:
        return reader.read(range(reader.num_frames))


def times_of(path: Path) -> list[float]:
    with PyAVStream(path) as stream:
        return [frame.time for frame in stream]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Number and time of each copy; a copy that is written again has another number or time."""
    found = [path for path in folder.rglob("*") if path.suffix in (".mp4", ".avi", ".jpg")]
    return {path.name: (os.stat(path).st_ino, os.stat(path).st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes: containers and codecs, display matrices, files that are broken."""
    root = tmp_path_factory.mktemp("originals") / "data"
    for folder in ("formats", "turned", "broken"):
        (root / "train" / folder).mkdir(parents=True)
    for name in ("h264.mkv", "h264.ts", "mpeg4.avi", "vp9.webm"):
        codec, options = FORMATS[name]
        path = root / "train/formats" / f"{name.replace('.', '_')}.{name.split('.')[1]}"
        write_moving_video(path, codec=codec, options=options, num_frames=30)
    b_frames = {"bf": "3", "x264-params": "b-adapt=0:cpu-independent=1"}
    write_moving_video(root / "train/formats/b.avi", options=b_frames, num_frames=30)
    for i, turn in enumerate([(90, False, False), (180, True, False)]):
        path = root / "train/turned" / f"{i}.mp4"
        write_moving_video(path, num_frames=20 + i, rotation=turn, size=(38, 50))
    with VideoWriter(root / "train/turned/vfr.mp4", 20) as writer:
        for i, frame in enumerate(moving_frames(24, 48, 64)):
            writer.write(frame, i / 20 + (i // 5) * 0.35)
    broken = root / "train/broken"
    whole = write_moving_video(broken / "whole.mp4", num_frames=48, faststart=True)
    (broken / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    write_damaged(broken / "damaged.mp4", whole, 20)
    (broken / "text.mp4").write_text("no video " * 50)
    return root


@pytest.fixture
def data(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "data"))


def test_copies_have_the_frames_times_and_sizes_of_the_originals(data: Path, tmp_path: Path):
    prepare(data, gop=5, crf=10, to=tmp_path / "copies")
    names = [path for path in (data / "train").rglob("*") if path.parent.name != "broken"]
    originals = [path for path in names if path.is_file()]
    assert len(originals) == 8
    rows = rows_of(tmp_path / "copies")
    for path in originals:
        copy = tmp_path / "copies" / path.relative_to(data).with_suffix(".mp4")
        expected = frames_of(path)
        found = frames_of(copy)
        assert found.shape == expected.shape, path
        # Saturated colors at the size of a few pixels do not survive 4:2:0 twice. Motion of one
        # pixel shows that each frame is compared with its own.
        assert psnr(found, expected) > 30 > 25 > psnr(found[1:], expected[:-1]), path
        # Time stamps count 1/90,000 s.
        np.testing.assert_allclose(times_of(copy), times_of(path), atol=1e-4)
        facts = rows[copy.name].facts
        if path.name != "vfr.mp4":
            assert facts.rate == pytest.approx(25, rel=1e-3)
        assert facts.key_frames == tuple(range(0, len(expected), 5))  # closed groups of 5 frames
        assert (facts.num_frames, facts.rotation, facts.mirrored) == (len(expected), 0, False)
        assert (facts.width, facts.height) == expected.shape[2:0:-1]
        assert facts.codec == "h264"
        with open_video(copy) as reader:  # decoding from any key frame gives the same frames
            for number in (7, 19, 4):
                np.testing.assert_array_equal(reader.read([number])[0], found[number])


def test_broken_originals_are_named_and_have_no_copy(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prepare(data, gop=16, to=tmp_path / "copies")
    said = capsys.readouterr().out
    assert "9 of 12 videos can be used" in said
    assert re.search(
        r"^9 copies, \d\.\d\d x the bytes of the originals; PSNR \d\d\.\d dB in 5", said, re.M
    )
    rows = rows_of(tmp_path / "copies")
    bad = {name: row.facts.status for name, row in rows.items() if row.facts.status != "ok"}
    assert bad == {"cut.mp4": "cut short", "damaged.mp4": "damaged", "text.mp4": "unreadable"}
    for name in bad:
        assert name in said
        assert rows[name].path == f"../data/train/broken/{name}"
    copies = list((tmp_path / "copies/train/broken").iterdir())
    assert [path.name for path in copies] == ["whole.mp4"]
    assert f"data.root={tmp_path / 'copies'} data.train=manifest.parquet" in said
    index = read_index(tmp_path / "copies", "manifest.parquet")
    assert len(index) == 9 and all(index.path(i).is_file() for i in range(9))


def test_sizes(tmp_path: Path, data: Path):
    """A short side is never enlarged; sides are even."""
    shutil.rmtree(data / "train/broken")
    prepare(data, resize="32", to=tmp_path / "short")
    sizes = {n: (r.facts.width, r.facts.height) for n, r in rows_of(tmp_path / "short").items()}
    assert sizes["h264_mkv.mp4"] == (42, 32) and sizes["vfr.mp4"] == (42, 32)
    assert sizes["0.mp4"] == (32, 42) and sizes["1.mp4"] == (42, 32)  # turned: 38 x 50, 50 x 38
    prepare(data, resize="48x80", to=tmp_path / "exact")
    assert {(r.facts.width, r.facts.height) for r in rows_of(tmp_path / "exact").values()} == {
        (48, 80)
    }
    prepare(data, resize="64", to=tmp_path / "same")
    assert rows_of(tmp_path / "same")["h264_mkv.mp4"].facts.width == 64


def test_a_repeated_command_makes_only_what_is_missing(data: Path, tmp_path: Path):
    copies = tmp_path / "copies"
    shutil.rmtree(data / "train/formats")

    def again(**words) -> tuple[set[str], bytes]:
        before = states(copies)
        prepare(data, to=copies, **words)
        after = states(copies)
        manifest = (copies / "manifest.parquet").read_bytes()
        return {name for name in after if after[name] != before.get(name)}, manifest

    everything, first = again(resize="32")
    assert everything == {"0.mp4", "1.mp4", "vfr.mp4", "whole.mp4"}
    assert again(resize="32") == (set(), first)
    (copies / "train/turned/0.mp4").unlink()
    (copies / "train/turned/.1.mp4.nlnet_partial.77.partial").write_bytes(b"of a killed process")
    assert again(resize="32")[0] == {"0.mp4"}
    assert not list(copies.rglob(".*"))
    shutil.copy(data / "train/turned/0.mp4", data / "train/turned/1.mp4")  # another original
    assert again(resize="32")[0] == {"1.mp4"}
    assert again(resize="32", crf=30)[0] == everything


def test_other_files_are_not_replaced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A file or folder that is in the place of a copy, and that this tool has not written."""
    shutil.rmtree(data / "train/broken")
    shutil.rmtree(data / "train/formats")
    videos, images = tmp_path / "videos/train/turned", tmp_path / "images/train/turned"
    videos.mkdir(parents=True)
    precious = shutil.copy(data / "train/turned/0.mp4", videos / "0.mp4").read_bytes()
    extract_frames(data / "train/turned/0.mp4", images / "0")
    prepare(data, gop=4, to=tmp_path / "videos")
    assert "videos/train/turned/0.mp4 is in its place and no copy" in capsys.readouterr().out
    prepare(data, frames="jpg", to=tmp_path / "images")
    assert "images/train/turned/0 is in its place and no copy" in capsys.readouterr().out
    assert (videos / "0.mp4").read_bytes() == precious
    assert {path.suffix for path in (images / "0").iterdir()} == {".png"}
    # In place, a file beside the original that no list names.
    shutil.copy(data / "train/turned/0.mp4", data / "train/turned/1.avi")
    (data / "train.txt").write_text("train/turned/1.avi run\n")
    before = (data / "train/turned/1.mp4").read_bytes()
    with pytest.raises(UserError, match="none of the 1 videos can be used"):
        prepare(data, "list", gop=4, in_place=True)
    assert "1.mp4 is in its place and no copy" in capsys.readouterr().out
    assert (data / "train/turned/1.mp4").read_bytes() == before
    assert (data / "train/turned/1.avi").read_bytes() == precious


def test_copies_in_place(data: Path):
    """The originals are removed only after their copies are whole; the command can be repeated."""
    shutil.rmtree(data / "train/turned")
    expected = frames_of(data / "train/formats/mpeg4_avi.avi")
    avi = (data / "train/formats/mpeg4_avi.avi").read_bytes()
    prepare(data, gop=4, crf=10, in_place=True)
    names = {path.name for path in data.rglob("*") if path.is_file()}
    assert names == {"b.mp4", "h264_mkv.mp4", "h264_ts.mp4", "mpeg4_avi.mp4", "vp9_webm.mp4"} | {
        *("whole.mp4", "cut.mp4", "damaged.mp4", "text.mp4", "manifest.parquet")
    }
    assert psnr(frames_of(data / "train/formats/mpeg4_avi.mp4"), expected) > 34
    before, rows = states(data), rows_of(data)
    # As if the command had been killed between writing a copy and removing its original.
    (data / "train/formats/mpeg4_avi.avi").write_bytes(avi)
    prepare(data, gop=4, crf=10, in_place=True)
    assert states(data) == before
    assert {name: row.facts for name, row in rows_of(data).items()} == {
        name: row.facts for name, row in rows.items()
    }
    # Lists of the originals find their copies.
    (data / "train.txt").write_text("train/formats/mpeg4_avi.avi 0\n")
    assert read_index(data, "train.txt").path(0).name == "mpeg4_avi.mp4"


def test_frames_are_extracted(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """PNG: bit for bit on every processor, because both sides were decoded on this one."""
    shutil.rmtree(data / "train/formats")
    png, jpg, small = (tmp_path / name for name in ("png", "jpg", "small"))
    prepare(data, frames="png", to=png)
    assert "without a difference in 4 of them" in capsys.readouterr().out
    prepare(data, frames="jpg", to=jpg)
    prepare(data, frames="jpg", resize="16", to=small)
    for path in [*(data / "train/turned").iterdir(), data / "train/broken/whole.mp4"]:
        expected = frames_of(path)
        place = path.relative_to(data).with_suffix("")
        np.testing.assert_array_equal(frames_of(png / place), expected)
        found = frames_of(jpg / place)
        assert np.abs(found.astype(int) - expected).mean() < 6  # saturated colors at half size
        assert min(frames_of(small / place).shape[1:3]) == 16
    assert {path.name for path in (png / "train/broken").iterdir()} == {"whole"}
    assert rows_of(jpg)["whole"].facts.container == "frames"
    before = states(jpg)
    prepare(data, frames="jpg", to=jpg)
    assert states(jpg) == before
    # Folders of frames become videos again.
    prepare(png, gop=16, crf=10, to=tmp_path / "back")
    row = rows_of(tmp_path / "back")["vfr.mp4"]
    assert (row.facts.num_frames, row.facts.rate) == (24, pytest.approx(25))


def test_jpeg_images_are_close_to_natural_frames(video_file: Callable[..., Path], tmp_path: Path):
    path = video_file("in/run/v.mp4", num_frames=20)
    prepare(tmp_path / "in", frames="jpg", to=tmp_path / "out")
    expected, found = frames_of(path), frames_of(tmp_path / "out/run/v")
    assert np.abs(found.astype(int) - expected).mean() < 0.5


def test_mistakes_are_one_line(data: Path, tmp_path: Path):
    def message(kind: type[UserError], **words) -> str:
        with pytest.raises(kind) as caught:
            prepare(words.pop("root", data), **words)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    to = tmp_path / "to"
    assert "--to DIR" in message(UsageError, resize="256")
    assert "--to DIR" in message(UsageError, resize="256", to=to, in_place=True)
    assert "--resize" in message(UsageError, to=to)
    for text in ("0", "255", "340x", "340x255", "x256", "small", "-2"):
        assert f"--resize={text}" in message(UsageError, resize=text, to=to)
    assert "--gop=0" in message(UsageError, gop=0, to=to)
    assert "--crf=52" in message(UsageError, crf=52, to=to)
    assert "--frames=gif" in message(UsageError, frames="gif", to=to)
    assert "--frames" in message(UsageError, frames="jpg", in_place=True)
    assert "--frames" in message(UsageError, frames="jpg", gop=4, to=to)
    assert "--shards" in message(UsageError, frames="jpg", to=to, shards="1GB")
    assert "is inside" in message(UserError, gop=4, to=data / "copies")
    shutil.copy(data / "train/turned/0.mp4", data / "train/turned/vfr.mov")
    assert "vfr.mov and" in message(UserError, gop=4, to=to).replace("vfr.mp4 and", "vfr.mov and")
    frames = extract_frames(data / "train/turned/0.mp4", tmp_path / "frames/train/run/v")
    assert "--to DIR" in message(UserError, gop=4, in_place=True, root=tmp_path / "frames")
    assert len(list(frames.iterdir())) == 20
    (tmp_path / "file").write_text("")
    assert "cannot be written" in message(UserError, gop=4, to=tmp_path / "file" / "below")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos that take some time to encode."""
    root = tmp_path_factory.mktemp("many")
    (root / "run").mkdir()
    for i in range(10):
        write_gray_video(root / "run" / f"{i}.mp4", num_frames=100 + i, size=(240, 320))
    return root


def start(root: Path, copies: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tools/prepare.py"), "folder", "--root", str(root)]
    command += ["--resize", "120", "--to", str(copies), "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_copies(copies: Path, process: subprocess.Popen[str], count: int) -> None:
    end = time.monotonic() + 120
    while len(list(copies.glob("run/[0-9]*.mp4"))) < count:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_command_continues(many: Path, tmp_path: Path):
    """SIGKILL at any instant: no partial copy is seen, and the rest is made."""
    process = start(many, tmp_path / "copies")
    wait_for_copies(tmp_path / "copies", process, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    made = states(tmp_path / "copies")
    assert 3 <= len(made) < 10
    for name in made:
        assert len(packets(tmp_path / "copies/run" / name)) == 100 + int(Path(name).stem)
    said, _ = start(many, tmp_path / "copies").communicate(timeout=120)
    assert "10 of 10 videos can be used" in said
    after = states(tmp_path / "copies")
    assert len(after) == 10 and {name: after[name] for name in made} == made
    assert not list((tmp_path / "copies").rglob(".*"))
    start(many, tmp_path / "again").communicate(timeout=120)
    for name in after:
        first, second = (tmp_path / folder / "run" / name for folder in ("copies", "again"))
        assert first.read_bytes() == second.read_bytes()  # both were written on this processor


@pytest.mark.slow
def test_a_process_that_dies_loses_one_video(many: Path, tmp_path: Path):
    process = start(many, tmp_path / "copies")
    wait_for_copies(tmp_path / "copies", process, 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    workers = [child for child, command in commands.items() if "spawn_main" in command]
    os.kill(workers[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert "9 of 10 videos can be used" in said and "left out, not copied: 1" in said
    assert "exit code -9" in said
    said, _ = start(many, tmp_path / "copies").communicate(timeout=120)
    assert "10 of 10 videos can be used" in said


def test_a_copy_that_is_cut_short_is_recognized(data: Path, tmp_path: Path):
    """The index of a copy is at its beginning."""
    prepare(data, gop=16, to=tmp_path / "copies")
    copy = tmp_path / "copies/train/broken/whole.mp4"
    copy.write_bytes(copy.read_bytes()[:-100])
    with pytest.raises(UserError, match="is cut short after 47 frames"):
        open_video(copy)
    with av.open(str(copy)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
