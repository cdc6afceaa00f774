import numpy as np
import pytest
import torch

from nlnet.clip import Failure
from nlnet.errors import ArgumentError, UserError
from nlnet.runs.ensembles import ENSEMBLES
from nlnet.trainer.metrics import (
    VideoScores,
    average_precision,
    best_classes,
    is_right,
)


def views(num_videos: int, num_classes: int, num_views: int, seed: int = 0) -> np.ndarray:
    """Make scores with few values, so that many are equal."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (num_videos, num_views, num_classes)) / 4


def scored(
    probabilities: np.ndarray, labels: np.ndarray, skip: tuple[int, ...] = ()
) -> VideoScores:
    scores = VideoScores(torch.from_numpy(labels), probabilities.shape[2])
    for video, rows in enumerate(probabilities):
        if video not in skip:
            scores.add(torch.from_numpy(rows).float(), torch.full((len(rows),), video))
    scores.gather()
    return scores


def ranking(score: np.ndarray) -> list[int]:
    return sorted(range(len(score)), key=lambda k: (-score[k], k))


@pytest.mark.parametrize("num_classes", [2, 3, 5, 12])
@pytest.mark.parametrize("skip", [(), (0, 7)])
def test_accuracies_equal_a_plain_count(num_classes: int, skip: tuple[int, ...]):
    probabilities = views(40, num_classes, 4)
    labels = np.random.default_rng(1).integers(0, num_classes, 40)
    metrics = scored(probabilities, labels, skip).metrics()

    top1, top5, by_class = 0, 0, {}
    for video in range(40):
        order = ranking(probabilities[video].mean(0))
        right = video not in skip and order[0] == labels[video]
        top1 += right
        top5 += video not in skip and labels[video] in order[:5]
        by_class.setdefault(int(labels[video]), []).append(right)
    assert metrics.values["top1"] == 100 * (top1 / 40)
    assert metrics.values["top5"] == 100 * (top5 / 40)
    expected = 100 * np.mean([np.mean(by_class[k]) for k in sorted(by_class)])
    assert metrics.values["mean_class"] == pytest.approx(expected, rel=1e-14)
    assert (metrics.main, metrics.score) == ("top1", metrics.values["top1"])


def test_equal_scores_rank_by_index():
    scores = torch.tensor([[0.2, 0.3, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]])
    assert best_classes(scores, 5).tolist() == [[1, 2, 0, 3], [0, 1, 2, 3]]


def test_a_class_among_several_labels_is_right():
    classes = torch.tensor([[0, 2], [1, 2]])
    assert is_right(classes, torch.tensor([2, 0])).tolist() == [[False, True], [False, False]]
    several = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert is_right(classes, several).tolist() == [[True, True], [False, False]]


def test_the_class_with_the_largest_share_of_a_soft_label_is_right():
    classes = torch.tensor([[0, 2], [0, 2], [1, 0], [1, 0]])
    soft = torch.tensor([[0.3, 0.0, 0.7], [0.7, 0.0, 0.3], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    expected = [[False, True], [True, False], [True, True], [False, False]]
    assert is_right(classes, soft).tolist() == expected


def test_predictions_hold_classes_scores_and_views():
    probabilities = views(6, 7, 3)
    labels = np.arange(6)
    scores = scored(probabilities, labels, skip=(2,))
    rows = scores.predictions()
    for video, row in enumerate(rows):
        assert (row.video_id, row.label) == (video, [video])
        if video == 2:
            assert row[2:] == (-1, 0.0, [], 0)
            continue
        mean = probabilities[video].mean(0)
        order = ranking(mean)
        assert (row.top1, row.top5, row.num_views) == (order[0], order[:5], 3)
        assert row.score == pytest.approx(mean[order[0]], rel=1e-14)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_size_of_chunks_changes_nothing(ensemble: str):
    probabilities = torch.rand(30, 9)
    rows = torch.arange(30) // 6
    whole, parts = (VideoScores(torch.arange(5), 9, ensemble) for _ in range(2))
    whole.add(probabilities, rows)
    for chunk, ids in zip(probabilities.split(4), rows.split(4), strict=True):
        parts.add(chunk, ids)
    assert torch.equal(whole.probabilities, parts.probabilities)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_an_ensemble_equals_the_reduction_of_numpy(ensemble: str):
    """numpy has a function of the same name. A video without views has probability 0."""
    probabilities = views(9, 4, 3).astype(np.float32)
    scores = VideoScores(torch.arange(10) % 4, 4, ensemble)
    for video, rows in enumerate(probabilities):
        scores.add(torch.from_numpy(rows), torch.full((3,), video))
    scores.gather()
    expected = getattr(np, ensemble)(probabilities.astype(np.float64), axis=1)
    np.testing.assert_allclose(scores.probabilities[:9].numpy(), expected, rtol=1e-15)
    assert scores.probabilities[9].tolist() == [0, 0, 0, 0]
    rows = scores.predictions()
    assert [row.top1 for row in rows] == [*(ranking(score)[0] for score in expected), -1]
    right = sum(ranking(score)[0] == video % 4 for video, score in enumerate(expected))
    assert scores.metrics().values["top1"] == 100 * (right / 10)


def test_an_unknown_ensemble_is_refused_with_the_known_ones():
    with pytest.raises(ArgumentError, match="ensemble=median is unknown; choose one of: mean, max"):
        VideoScores(torch.tensor([0]), 1, "median")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("ensemble", list(ENSEMBLES))
def test_scores_that_are_not_finite_give_no_accuracy(ensemble: str, value: float):
    scores = VideoScores(torch.tensor([0, 1]), 2, ensemble)
    scores.add(torch.tensor([[0.5, 0.5], [value, 0.5]]), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="not finite"):
        scores.gather()


def test_failures_are_recorded():
    scores = VideoScores(torch.tensor([0, 1]), 2)
    scores.fail([Failure("a.mp4", "no frames")])
    scores.gather()
    assert scores.failures == [Failure("a.mp4", "no frames")]
    assert scores.metrics().values == {"top1": 0.0, "top5": 0.0, "mean_class": 0.0}


def slow_average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Sum precision times the gain in recall over all thresholds, from the highest."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        asked = score >= threshold
        new_recall = (asked & positive).sum() / positive.sum()
        area += (asked & positive).sum() / asked.sum() * (new_recall - recall)
        recall = new_recall
    return area


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_equals_the_sum_over_all_thresholds(seed: int):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, 25) / 5
    positive = rng.random(25) < 0.3
    positive[0] = True
    found = average_precision(torch.from_numpy(score), torch.from_numpy(positive))
    assert found == pytest.approx(slow_average_precision(score, positive), rel=1e-12)


def test_average_precision_of_a_perfect_and_a_reversed_ranking():
    positive = torch.tensor([True, True, False, False])
    assert average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), positive) == 1.0
    reversed_ranking = average_precision(torch.tensor([1.0, 2.0, 3.0, 4.0]), positive)
    assert reversed_ranking == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_mean_ap_is_the_mean_over_classes_that_have_videos():
    probabilities = views(20, 5, 2)
    labels = (np.random.default_rng(3).random((20, 5)) < 0.4).astype(np.float32)
    labels[:, 3] = 0
    metrics = scored(probabilities, labels).metrics()
    mean = probabilities.mean(1)
    expected = [slow_average_precision(mean[:, k], labels[:, k] > 0) for k in (0, 1, 2, 4)]
    assert metrics.main == "mean_ap"
    assert metrics.values == {"mean_ap": pytest.approx(100 * np.mean(expected), rel=1e-12)}


def test_a_prediction_holds_all_labels():
    scores = VideoScores(torch.tensor([[0, 1, 1]]), 3)
    scores.add(torch.tensor([[0.1, 0.2, 0.7]]), torch.tensor([0]))
    assert scores.predictions()[0].label == [1, 2]


def test_views_are_kept_when_asked_sorted_by_video():
    scores = VideoScores(torch.tensor([0, 1, 0]), 2, keep_views=True)
    scores.add(torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([2, 2]))
    scores.add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([2, 0]))
    scores.gather()
    assert scores.views is not None
    assert scores.views.video_id.tolist() == [0, 2, 2, 2]
    wanted = [[0.0, 1.0], [0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]  # exact in float16
    assert scores.views.probabilities.tolist() == wanted


def test_without_any_view_there_is_an_empty_table():
    scores = VideoScores(torch.tensor([0, 1]), 2, keep_views=True)
    scores.gather()
    assert scores.views is not None and scores.views.probabilities.shape == (0, 2)


def test_views_are_not_kept_unless_asked():
    scores = VideoScores(torch.tensor([0]), 2)
    scores.add(torch.tensor([[0.25, 0.75]]), torch.tensor([0]))
    scores.gather()
    assert scores.views is None
