"""scores.npz: what is read is what was written, and anything else is refused in one line."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nlnet.clip import Failure
from nlnet.errors import UserError
from nlnet.runs.ensembles import ENSEMBLES
from nlnet.runs.scores import EvaluationScores, read_scores, write_scores
from nlnet.trainer.metrics import VideoScores


def some_scores(ensemble: str = "mean", several: bool = False) -> EvaluationScores:
    """Three videos of two views, one unreadable video, three classes."""
    views = np.random.default_rng(0).dirichlet(np.ones(3), size=6)
    by_video = views.reshape(3, 2, 3)
    totals = np.zeros((4, 3))
    totals[[0, 1, 3]] = by_video.sum(1) if ensemble == "mean" else by_video.max(1)
    labels = np.array([0, 2, 1, 1])
    return EvaluationScores(
        paths=["/data/a b.mp4", "/data/ü.mp4", "/data/bad\udcff.mp4", "/data/c.mp4"],
        class_names=["one", "<two>", "three"],
        labels=np.eye(3, dtype=bool)[labels] if several else labels,
        ensemble=ensemble,
        totals=totals,
        views=views.astype(np.float16),
        view_video=np.repeat(np.array([0, 1, 3], np.int32), 2),
        view_clip=np.tile(np.array([0, 1], np.int16), 3),
        view_crop=np.zeros(6, np.int16),
        failures=[Failure("/data/bad\udcff.mp4", "no video stream")],
    )


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("ensemble", ["mean", "max"])
def test_what_is_read_is_what_was_written(tmp_path: Path, ensemble: str, several: bool):
    scores = some_scores(ensemble, several)
    write_scores(tmp_path / "scores.npz", scores)
    found = read_scores(tmp_path / "scores.npz")
    for field in fields(EvaluationScores):
        wanted, got = getattr(scores, field.name), getattr(found, field.name)
        if isinstance(wanted, np.ndarray):
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)
        else:
            assert got == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_no_failures_and_no_views_can_be_written(tmp_path: Path):
    scores = some_scores()
    empty = replace(
        scores,
        failures=[],
        views=scores.views[:0],
        view_video=scores.view_video[:0],
        view_clip=scores.view_clip[:0],
        view_crop=scores.view_crop[:0],
    )
    write_scores(tmp_path / "scores.npz", empty)
    found = read_scores(tmp_path / "scores.npz")
    assert found.failures == []
    assert found.num_views.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_probabilities_are_those_of_the_evaluation(ensemble: str):
    """Bit for bit: both are one float64 division of the same numbers."""
    scores = some_scores(ensemble)
    evaluation = VideoScores(torch.from_numpy(scores.labels), 3, ensemble)
    evaluation.totals.copy_(torch.from_numpy(scores.totals))
    evaluation.num_views.copy_(torch.from_numpy(scores.num_views))
    np.testing.assert_array_equal(scores.probabilities, evaluation.probabilities.numpy())


def test_a_file_with_pickled_objects_is_refused(tmp_path: Path):
    path = tmp_path / "scores.npz"
    np.savez(path, paths=np.array([{}, []], dtype=object))
    with pytest.raises(UserError, match=r"scores\.npz: is not a file of scores"):
        read_scores(path)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros(3, int)},
        {"totals": np.zeros((4, 2))},
        {"views": np.zeros((5, 3), np.float16)},
        {"view_crop": np.zeros(2, np.int16)},
        {"view_video": np.array([0, 0, 1, 1, 4, 4], np.int32)},
        {"ensemble": "median"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path, change: dict):
    write_scores(tmp_path / "scores.npz", replace(some_scores(), **change))
    with pytest.raises(UserError, match=r"scores\.npz: .*; run tools/eval\.py again"):
        read_scores(tmp_path / "scores.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_other_files_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "scores.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"scores\.npz"):
        read_scores(path)


def test_a_cut_or_changed_file_is_refused(tmp_path: Path):
    path = tmp_path / "scores.npz"
    write_scores(path, some_scores())
    whole = path.read_bytes()
    for place in range(60, len(whole), len(whole) // 12):
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"scores\.npz"):
            read_scores(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.npz"):
        read_scores(tmp_path / "gone.npz")
