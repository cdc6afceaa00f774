"""Predictions of a recognizer: one video in every form, many files, windows, features."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import nlnet
from nlnet.data.decoding.pyav import PyAVReader
from nlnet.data.decoding.stream import PyAVStream
from nlnet.demo import DEMO, VIDEOS
from nlnet.errors import UserError
from nlnet.recognizer.inputs import find_videos
from nlnet.recognizer.recognizer import Recognizer
from tests.data.frame_folders import extract_frames

VideoFactory = Callable[..., Path]
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return nlnet.load(DEMO, device="cpu")


def frames_of(path: Path) -> np.ndarray:
    with PyAVReader(path) as reader:
        return reader.read(range(reader.num_frames))


def test_a_prediction_names_the_highest_scores(recognizer: Recognizer):
    for video in VIDEOS:
        scores = recognizer.scores(video)
        prediction = recognizer.predict(str(video))
        assert prediction.video == str(video) and prediction.error is None
        assert dict(prediction.top) == dict(
            zip(recognizer.class_names, scores.tolist(), strict=True)
        )
        assert prediction.top[0].probability == scores.max()
        assert recognizer.predict(video, top=1).top == prediction.top[:1]


def test_every_form_of_a_video_has_the_same_scores(recognizer: Recognizer, video_file):
    """Bit for bit: the views are the same pixels, and the network makes the same calls."""
    path = video_file("video.mp4", num_frames=20)
    expected = recognizer.scores(path)
    assert torch.equal(recognizer.scores(str(path)), expected)
    assert torch.equal(recognizer.scores(frames_of(path)), expected)
    assert torch.equal(recognizer.scores(io.BytesIO(path.read_bytes())), expected)
    with path.open("rb") as file:
        assert torch.equal(recognizer.scores(file), expected)


def test_a_folder_of_frames_is_a_video(recognizer: Recognizer, video_file, tmp_path: Path):
    """Bit for bit: PNG images hold the decoded frames. 25 frames a second, unless it is said."""
    path = video_file("videos/video.mp4", num_frames=50, fps=25)
    folder = extract_frames(path, tmp_path / "frames" / "walk" / "v1")
    assert torch.equal(recognizer.scores(folder), recognizer.scores(path))
    windows, expected = (list(recognizer.predict_over_time(x, 1, 1)) for x in (folder, path))
    assert [part.top for part in windows] == [part.top for part in expected]
    assert windows[-1].end == pytest.approx(expected[-1].end)
    (tmp_path / "frames" / "list.txt").write_text("walk/v1 50 0\nwalk/v1 0\nwalk/v1\n")
    for sources in ([folder], [tmp_path / "frames"], [tmp_path / "frames" / "walk"]):
        assert find_videos(sources) == [folder]
    assert find_videos([tmp_path / "frames" / "list.txt"]) == 3 * [folder]
    (prediction,) = recognizer.predict_files([folder])
    assert prediction.top == recognizer.predict(path).top


def test_many_files_have_the_scores_of_each(recognizer: Recognizer, few_videos: Path):
    """To rounding: files of one batch share a forward pass. More than 8 use worker processes."""
    files = sorted((few_videos / "train").rglob("*.mp4"))[:10]
    bad, gone = few_videos.parent / "bad.mp4", few_videos / "gone.mp4"
    bad.write_bytes(b"no video")
    predictions = list(recognizer.predict_files([bad, *files[:5], gone, *files[5:]]))
    assert [prediction.video for prediction in predictions if prediction.error is None] == [
        str(file) for file in files
    ]
    for prediction in predictions:
        if prediction.error is not None:
            assert Path(prediction.video) in (bad, gone) and prediction.top == ()
            assert "\n" not in prediction.error
        else:
            expected = recognizer.predict(prediction.video)
            assert dict(prediction.top) == pytest.approx(dict(expected.top), abs=1e-6)


def test_many_unreadable_files_are_rows(recognizer: Recognizer, tmp_path: Path):
    files = [tmp_path / f"{i}.mp4" for i in range(3)]
    assert all(prediction.error for prediction in recognizer.predict_files(files))
    assert list(recognizer.predict_files([])) == []


def test_windows_have_the_scores_of_their_frames(recognizer: Recognizer, video_file):
    """Bit for bit: a window of 8 frames is one clip of the demonstration's settings."""
    path = video_file("video.mp4", num_frames=45)
    frames = frames_of(path)
    parts = list(recognizer.predict_over_time(path, window=8 / 30, step=4 / 30))
    assert [round(part.start * 30) for part in parts] == list(range(0, 44, 4))
    for part in parts[:-1]:
        first = round(part.start * 30)
        assert part.end - part.start == pytest.approx(8 / 30)
        expected = recognizer.scores(frames[first : first + 8])
        assert np.array_equal(part.probabilities, expected.numpy())
        assert part.top == recognizer.predict(frames[first : first + 8]).top
    # The last window has frames 40 to 44, of which 44 is in no other window.
    assert parts[-1].end == pytest.approx(45 / 30)
    assert np.array_equal(parts[-1].probabilities, recognizer.scores(frames[40:]).numpy())
    of_array = recognizer.predict_over_time(frames, 8 / 30, 4 / 30, frame_rate=30)
    for part, same in zip(parts, of_array, strict=True):
        assert np.array_equal(part.probabilities, same.probabilities)
    # the defaults: a clip long, half of it apart
    assert [part.start for part in recognizer.predict_over_time(path)] == [
        part.start for part in parts
    ]


def test_features_are_what_the_classifier_sees(recognizer: Recognizer, video_file):
    path = video_file("video.mp4", num_frames=32)
    features = recognizer.features(path)
    assert features.values.shape == (4, 256) and features.values.dtype == np.float32
    assert np.allclose(features.start, np.arange(4) * 8 / 30)
    assert np.allclose(features.end, np.arange(1, 5) * 8 / 30)
    with torch.no_grad():
        logits = recognizer.model.head.fc(torch.from_numpy(features.values))
    frames = frames_of(path)
    for i, row in enumerate(logits.softmax(1)):
        expected = recognizer.scores(frames[8 * i : 8 * i + 8])
        assert torch.allclose(row.double(), expected, atol=1e-5)


def test_mistakes_are_one_line(recognizer: Recognizer, tmp_path: Path):
    (tmp_path / "text.mp4").write_text("no video")
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    mistakes: list[tuple[Callable[[], object], str]] = [
        (lambda: recognizer.predict(tmp_path / "gone.mp4"), r"gone\.mp4: no such file"),
        (lambda: recognizer.predict(io.BytesIO(b"text")), "file object: .*; give a video file"),
        (lambda: recognizer.predict(frames[0]), "array: .*uint8"),
        (lambda: recognizer.predict("http://127.0.0.1:9/video"), "http://127.0.0.1:9/video: "),
        (lambda: list(recognizer.predict_over_time(tmp_path / "text.mp4")), r"text\.mp4: "),
        (lambda: list(recognizer.predict_over_time(VIDEOS[0], window=0)), "window=0 "),
        (lambda: list(recognizer.predict_over_time(VIDEOS[0], step=-1)), "step=-1 "),
        (lambda: list(recognizer.predict_over_time(frames)), "frame_rate"),
        (lambda: recognizer.features(tmp_path / "gone.mp4"), r"gone\.mp4: no such file"),
    ]
    for call, pattern in mistakes:
        with pytest.raises(UserError, match=f"^[^\\n]*{pattern}[^\\n]*$"):
            call()


def test_folders_and_lists_become_videos(tmp_path: Path):
    for name in ("b/2.mp4", "a/1.avi", "a/.hidden.mp4", "a/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("a/1.avi\n\nb/2.mp4 3\ngone.mp4\n")
    one, two = tmp_path / "a" / "1.avi", tmp_path / "b" / "2.mp4"
    assert find_videos([str(tmp_path)]) == [one, two]
    assert find_videos([tmp_path / "list.txt"]) == [one, two, tmp_path / "gone.mp4"]
    assert find_videos([DEMO, "x.mp4", "rtsp://c/s"]) == [*VIDEOS, "x.mp4", "rtsp://c/s"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for source in ("empty", "empty.txt", "gone.txt"):
        with pytest.raises(UserError, match=rf"{source}: [^\n]+; [^\n]+$"):
            find_videos([tmp_path / source])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other take eight times as long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_an_hour_is_read_in_bounded_memory(recognizer: Recognizer, video_file, one_thread):
    """Resident memory after the first minute and at the end differ by less than 100 MB.

    From before the video on it grows by less than 1 GB; the imports need less than 0.5 GB.

    All predictions are kept, as tools/predict.py does.
    """
    path = video_file(
        "hour.mp4",
        num_frames=36_000,  # 1.3 GB of pixels
        size=(96, 128),
        fps=10,
        gop=250,
        options={"preset": "ultrafast", "crf": "40"},
    )
    with PyAVStream(path) as stream:
        assert stream.rate == 10
    before, after_a_minute, kept = resident_memory(), 0.0, []
    for part in recognizer.predict_over_time(path, window=4.0, step=2.0):
        kept.append(part)
        if after_a_minute == 0 and part.end > 60:
            after_a_minute = resident_memory()
    assert kept[-1].end == pytest.approx(3600, abs=0.2)
    assert resident_memory() - after_a_minute < 100e6
    assert resident_memory() - before < 1e9


def resident_memory() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
