"""Statistics of single classes: what they are taken for, and how well each is recognized."""

import math
from typing import NamedTuple

import numpy as np

from nlnet.report.statistics import ranking, weighted_average_precision


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count videos by label (rows) and prediction (columns): (K, K) int.

    A prediction below 0 stands for none and is left out.
    """
    known = predictions >= 0
    pairs = labels[known] * num_classes + predictions[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_of(
    scores: np.ndarray, labels: np.ndarray, has_views: np.ndarray | None = None
) -> np.ndarray:
    """The confusion matrix (K, K) of scores (N, K); a video without views has no prediction."""
    predictions = ranking(scores, 1)[:, 0]
    if has_views is not None:
        predictions = np.where(has_views, predictions, -1)
    return confusion_matrix(labels, predictions, scores.shape[1])


class Confusion(NamedTuple):
    """How often one class is taken for another."""

    label: int
    prediction: int
    videos: int
    share: float  # of the videos of the label that have a prediction


def most_confused(matrix: np.ndarray, count: int) -> list[Confusion]:
    """Return the largest entries off the diagonal, largest first; equal ones in reading order."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [divmod(int(place), len(matrix)) for place in order]
    return [
        Confusion(row, column, int(wrong[row, column]), float(wrong[row, column] / total))
        for row, column in pairs
        if wrong[row, column] and (total := matrix[row].sum())
    ]


class ClassRow(NamedTuple):
    """One class of a per-class table."""

    number: int  # of the class, from 0
    videos: int  # that have the label
    score: float  # accuracy; average precision for several labels per video; NaN without videos
    often: int  # the wrong class that its videos are most often taken for; -1 if there is none
    often_count: int


def class_table(
    scores: np.ndarray, labels: np.ndarray, has_views: np.ndarray | None = None
) -> list[ClassRow]:
    """Return a row for each class, in the order of the classes."""
    num_classes = scores.shape[1]
    if labels.ndim == 2:
        return [
            ClassRow(
                k,
                int(labels[:, k].sum()),
                float(weighted_average_precision(scores[:, k], labels[:, k] > 0)[0]),
                -1,
                0,
            )
            for k in range(num_classes)
        ]
    matrix = confusion_of(scores, labels, has_views)
    videos = np.bincount(labels, minlength=num_classes)
    rows = []
    for k in range(num_classes):
        wrong = matrix[k].copy()
        wrong[k] = 0
        often = int(wrong.argmax()) if wrong.any() else -1
        score = float(matrix[k, k] / videos[k]) if videos[k] else math.nan
        rows.append(ClassRow(k, int(videos[k]), score, often, int(wrong.max())))
    return rows
