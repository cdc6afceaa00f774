"""The statistics of a report, against values made by hand and against plain loops."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from nlnet.report import statistics
from nlnet.trainer.metrics import VideoScores

ONE = np.ones((1, 4))

# Four videos, three classes. Predictions 0, 1, 0 (a tie of 0 and 2), 2.
SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.2, 0.4], [0.0, 0.1, 0.9]])
LABELS = np.array([0, 2, 2, 2])


def random_scores(seed: int, videos: int = 60, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.dirichlet(np.ones(classes), size=videos), 2)  # rounded: there are ties
    return scores, rng.integers(classes, size=videos)


def test_equal_scores_rank_by_their_index():
    assert statistics.ranking(SCORES, 2).tolist() == [[0, 1], [1, 2], [0, 2], [2, 1]]
    assert statistics.ranking(SCORES, 5).shape == (4, 3)


def test_hits():
    assert statistics.hits(SCORES, LABELS, 1).tolist() == [True, False, False, True]
    assert statistics.hits(SCORES, LABELS, 2).tolist() == [True, True, True, True]
    has_views = np.array([False, True, True, True])
    assert statistics.hits(SCORES, LABELS, 1, has_views).tolist() == [False, False, False, True]


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_hits_are_labels_among_the_first_of_the_ranking(k: int):
    scores, labels = random_scores(4)  # with ties
    best = statistics.ranking(scores, k)
    wanted = [label in row for label, row in zip(labels.tolist(), best.tolist(), strict=True)]
    assert statistics.hits(scores, labels, k).tolist() == wanted


def test_hits_of_several_labels():
    labels = np.array([[0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    assert statistics.hits(SCORES, labels, 1).tolist() == [False, True, False, False]


def test_mean_class_accuracy_leaves_out_classes_without_videos():
    right = statistics.hits(SCORES, LABELS, 1)
    # class 0: 1 of 1; class 1: no video; class 2: 1 of 3
    assert statistics.mean_class(right, LABELS)(ONE)[0] == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_those_of_the_trainer(seed: int):
    scores, labels = random_scores(seed)
    evaluation = VideoScores(torch.from_numpy(labels), 7)
    has_views = np.random.default_rng(seed).random(60) > 0.1
    rows = torch.from_numpy(np.flatnonzero(has_views))
    evaluation.add(torch.from_numpy(scores)[rows], rows)
    wanted = evaluation.metrics().values
    ones = np.ones((1, 60))
    top1 = statistics.hits(scores, labels, 1, has_views)
    top5 = statistics.hits(scores, labels, 5, has_views)
    # Equal bits: an integer count over 60.
    assert 100 * top1.mean() == wanted["top1"]
    assert 100 * top5.mean() == wanted["top5"]
    mean_class = statistics.mean_class(top1, labels)(ones)[0]
    assert 100 * mean_class == pytest.approx(wanted["mean_class"], rel=1e-12)


def plain_average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area under the precision-recall steps, threshold by threshold."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        precision = positive[chosen].mean()
        recall = positive[chosen].sum() / positive.sum()
        area += precision * (recall - recall_before)
        recall_before = recall
    return area


def test_average_precision_by_hand():
    # ranks of the positives: 1, 3, 4 -> (1/1 + 2/3 + 3/4) / 3
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    positive = np.array([True, False, True, True, False])
    wanted = (1 + 2 / 3 + 3 / 4) / 3
    assert statistics.weighted_average_precision(scores, positive)[0] == pytest.approx(wanted)


def test_a_class_without_videos_has_no_average_precision():
    assert math.isnan(statistics.weighted_average_precision(np.ones(3), np.zeros(3, bool))[0])


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_against_plain_thresholds(seed: int):
    rng = np.random.default_rng(seed)
    scores, positive = np.round(rng.random(50), 1), rng.random(50) < 0.3
    found = statistics.weighted_average_precision(scores, positive)[0]
    assert found == pytest.approx(plain_average_precision(scores, positive))


@pytest.mark.parametrize("name", ["share", "mean_class", "mean_average_precision"])
def test_weights_are_repetitions(name: str):
    """A metric of weighted videos is that of the videos, each repeated as often as its weight."""
    scores, labels = random_scores(5)
    several = (scores > 0.15) ^ (np.random.default_rng(1).random(scores.shape) < 0.2)
    weights = np.random.default_rng(2).integers(0, 4, size=(3, 60))

    def metric(rows: np.ndarray) -> statistics.Metric:
        if name == "share":
            return statistics.share(statistics.hits(scores[rows], labels[rows], 1))
        if name == "mean_class":
            right = statistics.hits(scores[rows], labels[rows], 1)
            return statistics.mean_class(right, labels[rows])
        return statistics.mean_average_precision(scores[rows], several[rows])

    found = metric(np.arange(60))(weights.astype(float))
    for row, value in zip(weights, found, strict=True):
        repeated = np.repeat(np.arange(60), row)
        assert value == pytest.approx(metric(repeated)(np.ones((1, len(repeated))))[0])


def test_the_bootstrap_interval_is_that_of_a_binomial_share():
    flags = np.arange(400) < 300
    interval = statistics.bootstrap(statistics.share(flags), 400, resamples=2000)
    deviation = math.sqrt(0.75 * 0.25 / 400)
    assert interval.value == 0.75
    assert interval.low == pytest.approx(0.75 - 1.96 * deviation, abs=0.006)
    assert interval.high == pytest.approx(0.75 + 1.96 * deviation, abs=0.006)


def test_the_bootstrap_depends_on_its_seed_alone():
    metric = statistics.share(np.arange(30) < 20)
    assert statistics.bootstrap(metric, 30) == statistics.bootstrap(metric, 30)
    few, others = (statistics.bootstrap(metric, 30, resamples=9, seed=seed) for seed in (0, 1))
    assert few != others


def test_a_share_of_all_videos_has_no_uncertainty():
    assert statistics.bootstrap(statistics.share(np.ones(9, bool)), 9) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("total", "count", "wanted"),
    [(10, 1, [5]), (10, 2, [2, 7]), (3, 1, [1]), (3, 3, [0, 1, 2]), (10, 10, list(range(10)))],
)
def test_a_part_of_the_clips_is_spread_over_the_video(total: int, count: int, wanted: list[int]):
    assert statistics.spread_evenly(total, count) == wanted


@pytest.mark.parametrize(("total", "most"), [(1, 4), (3, 4), (4, 4), (5, 4), (100, 7)])
def test_numbers_that_are_spread_to_the_ends(total: int, most: int):
    """They rise, both ends are there, and the distances differ by at most one."""
    found = statistics.spread_ends(total, most)
    assert len(found) == min(total, most)
    assert found[0] == 0 and found[-1] == total - 1
    distances = np.diff(found).tolist()
    assert not distances or (min(distances) > 0 and max(distances) - min(distances) <= 1)


@pytest.mark.parametrize("ensemble", ["mean", "max"])
def test_the_metric_by_views_against_plain_loops(ensemble: str):
    rng = np.random.default_rng(0)
    clips, crops, videos, classes = 4, 3, 12, 5
    views = rng.dirichlet(np.ones(classes), size=(videos, clips, crops))
    labels = rng.integers(classes, size=videos)
    kept = np.arange(videos) != 7  # video 7 could not be read
    places = np.array(list(product(np.flatnonzero(kept), range(clips), range(crops))))

    def accuracy(scores: np.ndarray, has_views: np.ndarray) -> float:
        np.testing.assert_array_equal(has_views, kept)
        return float(statistics.hits(scores, labels, 1, has_views).mean())

    points = statistics.metric_by_views(
        views[kept].reshape(-1, classes),
        *places.T,
        num_videos=videos,
        ensemble=ensemble,
        metric=accuracy,
    )
    assert [(p.clips, p.crops) for p in points] == [(c, r) for r in (1, 3) for c in (1, 2, 3, 4)]
    combine = np.mean if ensemble == "mean" else np.max
    for point in points:
        right = 0
        for video in np.flatnonzero(kept):
            chosen = views[video][statistics.spread_evenly(4, point.clips)]
            chosen = chosen[:, statistics.spread_evenly(3, point.crops)].reshape(-1, classes)
            right += combine(chosen, axis=0).argmax() == labels[video]
        assert point.value == pytest.approx(right / videos)


def test_calibration_by_hand():
    confidence = np.array([0.1, 0.5, 0.6, 0.9, 1.0])
    right = np.array([False, False, True, True, True])
    found = statistics.calibration(confidence, right, bins=2)
    # up to 0.5: 2 videos, mean 0.3, none right; above: 3 videos, mean 2.5 / 3, all right
    assert found.counts.tolist() == [2, 3]
    assert found.confidence.tolist() == pytest.approx([0.3, 2.5 / 3])
    assert found.accuracy.tolist() == [0, 1]
    assert found.ece == pytest.approx((2 * 0.3 + 3 * (1 - 2.5 / 3)) / 5)


def test_an_empty_bin_has_no_accuracy():
    found = statistics.calibration(np.array([0.0, 0.95]), np.array([False, True]), bins=10)
    assert found.counts.tolist() == [1] + [0] * 8 + [1]
    assert np.isnan(found.accuracy[1:9]).all()


def flags(only_first: int, only_second: int, both: int = 3) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(True, False)] * only_first + [(False, True)] * only_second + [(True, True)] * both
    first, second = np.array(pairs).T
    return first, second


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (5, 0, 2 / 32),
        (1, 3, 2 * (1 + 4) / 16),
        (2, 2, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p_value: float):
    found = statistics.mcnemar(*flags(only_first, only_second))
    assert found == (only_first, only_second, pytest.approx(p_value), True)


def test_mcnemar_of_many_disagreements_is_close_to_the_exact_one():
    exact = statistics.mcnemar(*flags(520, 460))
    approximate = statistics.mcnemar(*flags(520, 460), exact_up_to=100)
    assert (exact.exact, approximate.exact) == (True, False)
    assert approximate.p_value == pytest.approx(exact.p_value, rel=0.01)
