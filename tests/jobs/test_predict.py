"""tools/predict.py: what it prints, the files that it writes, and its mistakes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nlnet
from nlnet.data.decoding.stream import PyAVStream
from nlnet.demo import DEMO, VIDEOS
from nlnet.errors import UsageError, UserError
from nlnet.jobs.predict import PredictOptions, file_stems, predict, segments
from nlnet.recognizer.prediction import ClassScore, WindowPrediction
from nlnet.report.over_time import ROW, STRIP

VideoFactory = Callable[..., Path]


def test_tables_have_a_row_for_each_video(tmp_path: Path, capsys):
    (tmp_path / "bad.mp4").write_text("no video")
    options = PredictOptions(json=tmp_path / "p.json", csv=tmp_path / "p.csv")
    sources = [DEMO, str(tmp_path / "bad.mp4")]
    with pytest.raises(UserError, match=r"^1 of 3 videos could not be read[^\n]*$"):
        predict(DEMO, sources, options, device="cpu")
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["class_names"] == ["different", "same"]
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    recognizer = nlnet.load(DEMO, device="cpu")
    for video, entry, row in zip(VIDEOS, content["videos"], rows, strict=False):
        expected = recognizer.predict(video)
        best = expected.top[0]
        assert entry["video"] == row["video"] == str(video)
        assert entry["top"][0]["name"] == row["class_1"] == best.name == video.stem
        assert entry["top"][0]["probability"] == pytest.approx(best.probability, abs=1e-6)
        assert float(row["probability_1"]) == pytest.approx(best.probability, abs=1e-6)
        assert f"{video}\n   {100 * best.probability:5.1f} %  {best.name}\n" in printed
    assert rows[2]["video"] == content["videos"][2]["video"] == sources[1]
    assert rows[2]["error"] == content["videos"][2]["error"] != ""
    assert f"{sources[1]}\n   cannot be read: " in printed


def test_over_time_writes_a_video_and_a_timeline(tmp_path: Path, video_file: VideoFactory, capsys):
    video = video_file("long.mp4", num_frames=40, fps=8, size=(48, 64))
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    out = tmp_path / "out"
    options = PredictOptions(
        json=tmp_path / "p.json",
        csv=tmp_path / "p.csv",
        over_time=True,
        out=out,
        window=1,
        step=0.5,
    )
    with pytest.raises(UserError, match=r"^1 of 2 videos"):
        predict(DEMO, [str(bad), str(video)], options, device="cpu")
    assert sorted(path.name for path in out.iterdir()) == ["long.mp4", "long.png"]
    windows = json.loads((tmp_path / "p.json").read_text())["videos"][1]["windows"]
    assert [window["start"] for window in windows] == [i / 2 for i in range(9)]
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and rows[0]["error"] and rows[1]["start"] == "0.000"
    with Image.open(out / "long.png") as picture:
        assert picture.size[0] > 600
    with PyAVStream(video) as source, PyAVStream(out / "long.mp4") as annotated:
        times = [frame.time for frame in source]
        frames = list(annotated)
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-3)
    first = frames[0].pixels()
    # The picture is 320 x 240. Below it are the strip and two rows of classes.
    assert first.shape[1] == 320 and 240 + STRIP + 2 * ROW < first.shape[0] < 340
    assert "x real time" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_features_are_written(tmp_path: Path, video_file: VideoFactory, suffix: str):
    video = video_file("long.mp4", num_frames=24, fps=8)
    path = tmp_path / f"features{suffix}"
    options = PredictOptions(features=path)
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    with pytest.raises(UserError, match=r"^1 of 3 videos"):
        predict(DEMO, [str(VIDEOS[0]), str(bad), str(video)], options, device="cpu")
    expected = nlnet.load(DEMO, device="cpu").features(video)
    if suffix == ".npz":
        content = np.load(path)
        values, start = content["features"], content["start"]
        videos = content["videos"][content["video"]].tolist()
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(path)
        values = np.array(table["features"].to_pylist(), np.float32)
        start, videos = table["start"].to_numpy(), table["video"].to_pylist()
    assert videos == [str(VIDEOS[0]), *[str(video)] * 3]
    assert np.array_equal(values[1:], expected.values)
    assert start.tolist() == [0, *expected.start]


def test_watch_prints_each_window(video_file: VideoFactory, capsys):
    """A file stands for the camera: both are read as a stream."""
    video = video_file("camera.mp4", num_frames=24, fps=8)
    predict(DEMO, [], PredictOptions(watch=str(video), window=1, step=1), device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" s ")[0] for line in lines] == ["0.0 - 1.0", "1.0 - 2.0", "2.0 - 3.0"]


@pytest.mark.parametrize(
    ("checkpoint", "sources", "options", "message"),
    [
        ("best.pt", [], PredictOptions(), "no VIDEO"),
        (DEMO, ["x"], PredictOptions(watch="/dev/video0"), "--watch"),
        (DEMO, [], PredictOptions(features=Path("x.txt")), r"x\.txt: must end with"),
        (DEMO, [], PredictOptions(features=Path("x.npz"), over_time=True), "--features"),
        (DEMO, [], PredictOptions(features=Path("gone/x.npz")), r"gone/x\.npz: the folder"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    checkpoint: str, sources: list[str], options: PredictOptions, message: str
):
    with pytest.raises(UsageError, match=rf"^[^\n]*{message}[^\n]*$"):
        predict(checkpoint, sources, options)


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    options = PredictOptions(over_time=True, out=tmp_path / "file" / "out")
    with pytest.raises(UserError, match=r"^[^\n]*file/out: cannot be created[^\n]*--out$"):
        predict(DEMO, [DEMO], options, device="cpu")


def test_equal_windows_are_one_segment():
    def part(start: float, name: str, probability: float) -> WindowPrediction:
        top = (ClassScore(name, probability),)
        return WindowPrediction(start, start + 2, top, np.array([probability]))

    parts = [part(0, "run", 0.8), part(1, "run", 0.6), part(2, "walk", 0.9)]
    assert [line.split() for line in segments(parts)] == [
        ["0.0", "-", "2.5", "s", "70.0", "%", "run"],
        ["2.5", "-", "4.0", "s", "90.0", "%", "walk"],
    ]


def test_results_of_equal_names_have_a_number():
    assert file_stems(["a/x.mp4", "b/x.mp4", "y.avi", "c/x.mkv"]) == ["x", "x_2", "y", "x_3"]
