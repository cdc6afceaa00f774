"""Everything that a report says about one evaluation, computed from its scores."""

from dataclasses import dataclass

import numpy as np

from nlnet.report import statistics
from nlnet.report.classes import (
    ClassRow,
    Confusion,
    class_table,
    confusion_matrix,
    most_confused,
)
from nlnet.report.statistics import Calibration, Interval, ViewPoint
from nlnet.runs.scores import EvaluationScores

TITLES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "mean_class": "Mean class accuracy",
    "mean_ap": "Mean average precision",
}


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
    by_views: list[ViewPoint]  # the main metric
    right: np.ndarray  # (N,) bool: the best class is a label
    calibration: Calibration
    matrix: np.ndarray | None  # confusion matrix; None for several labels per video
    confused: list[Confusion]
    classes: list[ClassRow]
    worst: list[Case]  # wrong videos, the lowest score of the label first
    confident: list[Case]  # wrong videos, the highest score of a wrong class first


def analyze(scores: EvaluationScores, *, pairs: int = 15, cases: int = 8) -> Analysis:
    """Compute the statistics of an evaluation.

    Args:
        scores: of N videos
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
        predictions = np.where(has_views, statistics.ranking(scores.totals, 1)[:, 0], -1)
        matrix = confusion_matrix(labels, predictions, len(scores.class_names))
        confused = most_confused(matrix, pairs)
    metrics = _metrics(scores)
    wrong = np.flatnonzero(~right & has_views)
    all_cases = [_case(scores, probabilities, int(video)) for video in wrong]
    worst = sorted(all_cases, key=lambda case: case.label_score)[:cases]
    shown = {case.video for case in worst}
    rest = [case for case in all_cases if case.video not in shown]
    return Analysis(
        metrics=metrics,
        by_views=_by_views(scores, next(iter(metrics.values())).value),
        right=right,
        calibration=calibration,
        matrix=matrix,
        confused=confused,
        classes=class_table(scores.totals if not several else probabilities, labels, has_views),
        worst=worst,
        confident=sorted(rest, key=lambda case: -case.best[0][1])[:cases],
    )


def _metrics(scores: EvaluationScores) -> dict[str, Interval]:
    labels, has_views = scores.labels, scores.num_views > 0
    num_videos = len(labels)
    if labels.ndim == 2:
        metric = statistics.mean_average_precision(scores.probabilities, labels > 0)
        return {"mean_ap": statistics.bootstrap(metric, num_videos)}
    top1 = statistics.hits(scores.totals, labels, 1, has_views)
    top5 = statistics.hits(scores.totals, labels, 5, has_views)
    return {
        "top1": statistics.bootstrap(statistics.share(top1), num_videos),
        "top5": statistics.bootstrap(statistics.share(top5), num_videos),
        "mean_class": statistics.bootstrap(statistics.mean_class(top1, labels), num_videos),
    }


def _by_views(scores: EvaluationScores, value: float) -> list[ViewPoint]:
    """The main metric by the number of views; `value` is that of all views, computed exactly."""
    if not len(scores.views):
        return []
    labels = scores.labels

    def metric(probabilities: np.ndarray, has_views: np.ndarray) -> float:
        if labels.ndim == 2:
            of_videos = statistics.mean_average_precision(probabilities, labels > 0)
            return float(of_videos(np.ones((1, len(labels))))[0])
        return float(statistics.hits(probabilities, labels, 1, has_views).mean())

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
