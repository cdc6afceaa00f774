"""Compare two evaluations on the videos that both have."""

from dataclasses import dataclass

import numpy as np

from nlnet.errors import UserError
from nlnet.report.analysis import Analysis
from nlnet.report.runs import EvaluatedRun
from nlnet.report.statistics import Interval, McNemar, bootstrap, mcnemar


@dataclass(frozen=True)
class _ClassDifference:
    """The accuracy of one class in two runs, on their common videos."""

    number: int  # of the class, from 0
    videos: int
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """Two runs on their common videos; right means that the best class is a label."""

    first: int  # index of the run
    second: int
    videos: int
    same_videos: bool  # whether both runs have exactly these videos
    difference: Interval  # accuracy of the second run minus that of the first one
    test: McNemar
    classes: list[_ClassDifference]  # classes with videos, the largest loss first


def compare(
    runs: list[EvaluatedRun], analyses: list[Analysis], first: int, second: int
) -> Comparison:
    """Compare two of the runs.

    Raises UserError if they have different classes, or no video in common.
    """
    one, two = runs[first], runs[second]
    if one.scores.class_names != two.scores.class_names:
        raise UserError(
            f"{one.folder} and {two.folder} have different classes; report on them one by one"
        )
    rows = {video: row for row, video in enumerate(two.videos)}
    pairs = [(row, rows[video]) for row, video in enumerate(one.videos) if video in rows]
    if not pairs:
        raise UserError(
            f"{one.folder} and {two.folder} have no video in common; report on them one by one"
        )
    left, right = np.array(pairs).T
    right_one, right_two = analyses[first].right[left], analyses[second].right[right]
    difference = right_two.astype(np.float64) - right_one
    return Comparison(
        first=first,
        second=second,
        videos=len(pairs),
        same_videos=len(pairs) == len(one.videos) == len(two.videos),
        difference=bootstrap(
            lambda weights: weights @ difference / weights.sum(axis=1), len(pairs)
        ),
        test=mcnemar(right_one, right_two),
        classes=_class_differences(one.scores.labels[left], right_one, right_two),
    )


def _class_differences(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray
) -> list[_ClassDifference]:
    differences = []
    for k in range(int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]):
        members = labels == k if labels.ndim == 1 else labels[:, k] > 0
        if members.any():
            accuracies = float(first[members].mean()), float(second[members].mean())
            differences.append(_ClassDifference(k, int(members.sum()), *accuracies))
    return sorted(differences, key=lambda row: row.second - row.first)
