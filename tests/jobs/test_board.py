"""TensorBoard reads the pictures of an evaluation and of a validation back."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nlnet.jobs.board import show_evaluation, show_validation
from nlnet.report.board_pictures import LARGE_CELL, confusion_picture
from nlnet.report.classes import confusion_of
from nlnet.runs.logger import RunLogger
from nlnet.trainer.metrics import VideoScores
from tests.conftest import write_gray_video
from tests.report.runs import CLASSES, UNREADABLE, made_up_scores


def images(folder: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """The steps and pixels of the pictures in a folder of events."""
    board = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {
        tag: [
            (event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string))))
            for event in board.Images(tag)
        ]
        for tag in board.Tags()["images"]
    }


def test_an_evaluation_shows_its_confusion_matrix_and_wrong_videos(tmp_path: Path):
    scores = made_up_scores(tmp_path / "data")
    (tmp_path / "data" / "val").mkdir(parents=True)
    for path in scores.paths[::2]:
        write_gray_video(Path(path), num_frames=12)
    for _ in range(2):  # the second evaluation replaces the pictures of the first one
        show_evaluation(tmp_path / "board", scores)
    found = images(tmp_path / "board")
    ((step, picture),) = found.pop("confusion")
    assert step == 0
    size = LARGE_CELL * len(CLASSES)
    cells = picture[-size::LARGE_CELL, -size::LARGE_CELL, 0]
    counts = np.zeros((len(CLASSES), len(CLASSES)))
    for video, label in enumerate(scores.labels):
        if video != UNREADABLE:
            counts[label, scores.totals[video].argmax()] += 1
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose((255 - cells.astype(float)) / (255 - 8), shares, atol=0.003)
    assert found and all(tag.startswith(("wrong/worst_", "wrong/confident_")) for tag in found)
    assert len(found) < 8  # half of the videos do not exist
    for ((_, strip),) in found.values():
        assert strip.shape[1] >= 8 * 112


def test_several_labels_have_no_confusion_matrix(tmp_path: Path):
    show_evaluation(tmp_path, made_up_scores(tmp_path, several=True))
    assert images(tmp_path) == {}


@pytest.mark.parametrize("ranks", ["main", "other"])
def test_each_validation_shows_its_confusion_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: str
):
    monkeypatch.setattr("nlnet.runs.logger.is_main", lambda: ranks == "main")
    made_up = made_up_scores(tmp_path)
    scores = VideoScores(torch.from_numpy(made_up.labels), len(CLASSES))
    scores.totals.copy_(torch.from_numpy(made_up.totals))
    scores.num_views.copy_(torch.from_numpy(made_up.num_views))
    with RunLogger(tmp_path, total_steps=8) as logger:
        for step in (4, 8):
            show_validation(logger, scores, CLASSES, step)
    if ranks == "other":
        assert not (tmp_path / "tensorboard").exists()
        return
    found = images(tmp_path / "tensorboard")
    has_views = made_up.num_views > 0
    wanted = confusion_picture(confusion_of(made_up.totals, made_up.labels, has_views), CLASSES)
    assert list(found) == ["val/confusion"]
    assert [step for step, _ in found["val/confusion"]] == [4, 8]
    for _, picture in found["val/confusion"]:
        np.testing.assert_array_equal(picture, wanted)


def test_an_evaluation_without_videos_in_reach_shows_the_matrix(tmp_path: Path):
    scores = replace(made_up_scores(tmp_path / "gone"), failures=[])
    show_evaluation(tmp_path / "board", scores)
    assert list(images(tmp_path / "board")) == ["confusion"]
