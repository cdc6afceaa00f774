"""Everything that a report says about one evaluation, computed from its scores."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nlnet.report import statistics
from nlnet.report.classes import (
    ClassRow,
    Confusion,
    class_table,
    confusion_of,
    most_confused,
)
from nlnet.report.statistics import Calibration, Interval, Metric, ViewPoint
from nlnet.runs.record import main_first
from nlnet.runs.scores import EvaluationScores

TITLES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "mean_class": "Mean class accuracy",
    "mean_ap": "Mean average precision",
}
# Scores (N, K), labels and which videos (N,) have views -> the metric.
MetricOf = Callable[[np.ndarray, np.ndarray, np.ndarray], Metric]


@dataclass(frozen=True)
class Case:
    """The scores of one video."""

    video: int  # row of the scores
    labels: list[int]
    best: list[tuple[int, float]]  # (class, score) of the five best classes, best first
    others: list[tuple[int, float]]  # the same of labels that are not among them
    label_score: float  # of its best label


@dataclass(frozen=True)
class Analysis:
    """The statistics of one evaluation."""

    metrics: dict[str, Interval]  # by the names of metrics.json, the main one first
    main: str  # the name of the main metric
    by_views: list[ViewPoint]  # the main metric
    right: np.ndarray  # (N,) bool: the best class is a label
    calibration: Calibration
    matrix: np.ndarray | None  # confusion matrix; None for several labels per video
    confused: list[Confusion]
    classes: list[ClassRow]
    worst: list[Case]  # wrong videos, the lowest score of the label first
    confident: list[Case]  # wrong videos, the highest score of a wrong class first


def analyze(
    scores: EvaluationScores, main: str | None, *, pairs: int = 15, cases: int = 8
) -> Analysis:
    """Compute the statistics of an evaluation.

    Args:
        scores: of N videos
        main: the name of the metric that selects the best checkpoint. For None, and for a metric
            that is not in METRICS, it is the first one of METRICS for this kind of labels.
        pairs: number of most confused pairs
        cases: number of the worst, and of the most confident wrong videos
    """
    labels, probabilities, has_views = scores.labels, scores.probabilities, scores.num_views > 0
    right = statistics.hits(scores.totals, labels, 1, has_views)
    several = labels.ndim == 2
    if several:
        seen = probabilities[has_views]
        calibration = statistics.calibration(seen.ravel(), labels[has_views].ravel() > 0)
        matrix, confused = None, []
    else:
        calibration = statistics.calibration(probabilities.max(axis=1)[has_views], right[has_views])
        matrix = confusion_of(scores.totals, labels, has_views)
        confused = most_confused(matrix, pairs)
    metrics = main_first(_metrics(scores), main)
    main = next(iter(metrics))
    worst, confident = wrong_cases(scores, cases)
    return Analysis(
        metrics=metrics,
        main=main,
        by_views=_by_views(scores, main, metrics[main].value),
        right=right,
        calibration=calibration,
        matrix=matrix,
        confused=confused,
        classes=class_table(scores.totals if not several else probabilities, labels, has_views),
        worst=worst,
        confident=confident,
    )


def wrong_cases(scores: EvaluationScores, count: int) -> tuple[list[Case], list[Case]]:
    """The worst wrong videos, and the most confident ones among the others: see Analysis."""
    has_views, probabilities = scores.num_views > 0, scores.probabilities
    wrong = np.flatnonzero(~statistics.hits(scores.totals, scores.labels, 1, has_views) & has_views)
    cases = [_case(scores, probabilities, int(video)) for video in wrong]
    worst = sorted(cases, key=lambda case: case.label_score)[:count]
    shown = {case.video for case in worst}
    rest = [case for case in cases if case.video not in shown]
    return worst, sorted(rest, key=lambda case: -case.best[0][1])[:count]


def _hits(k: int) -> MetricOf:
    return lambda scores, labels, has_views: statistics.share(
        statistics.hits(scores, labels, k, has_views)
    )


# The metrics by the kind of labels: one per video, or several.
METRICS: dict[bool, dict[str, MetricOf]] = {
    False: {
        "top1": _hits(1),
        "top5": _hits(5),
        "mean_class": lambda scores, labels, has_views: statistics.mean_class(
            statistics.hits(scores, labels, 1, has_views), labels
        ),
    },
    True: {
        "mean_ap": lambda scores, labels, has_views: statistics.mean_average_precision(
            scores, labels > 0
        )
    },
}


def _metrics(scores: EvaluationScores) -> dict[str, Interval]:
    labels, has_views = scores.labels, scores.num_views > 0
    several = labels.ndim == 2
    values = scores.probabilities if several else scores.totals  # totals rank exactly
    return {
        name: statistics.bootstrap(metric(values, labels, has_views), len(labels))
        for name, metric in METRICS[several].items()
    }


def _by_views(scores: EvaluationScores, name: str, value: float) -> list[ViewPoint]:
    """A metric by the number of views; `value` is that of all views, computed exactly."""
    if not len(scores.views):
        return []
    labels = scores.labels
    metric_of = METRICS[labels.ndim == 2][name]

    def metric(probabilities: np.ndarray, has_views: np.ndarray) -> float:
        of_videos = metric_of(probabilities, labels, has_views)
        return float(of_videos(np.ones((1, len(labels))))[0])

    points = statistics.metric_by_views(
        scores.views,
        scores.view_video,
        scores.view_clip,
        scores.view_crop,
        num_videos=len(labels),
        ensemble=scores.ensemble,
        metric=metric,
    )
    # The scores of views are rounded, those of videos are not.
    return [*points[:-1], points[-1]._replace(value=value)]


def _case(scores: EvaluationScores, probabilities: np.ndarray, video: int) -> Case:
    label, row = scores.labels[video], probabilities[video]
    labels = [int(label)] if label.ndim == 0 else np.flatnonzero(label).tolist()
    best = statistics.ranking(row[None], 5)[0].tolist()
    return Case(
        video=video,
        labels=labels,
        best=[(k, float(row[k])) for k in best],
        others=[(k, float(row[k])) for k in labels if k not in best],
        label_score=max((float(row[k]) for k in labels), default=0.0),
    )
