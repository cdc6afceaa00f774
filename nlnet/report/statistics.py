"""Statistics of an evaluation: pure functions over arrays, without any file or network.

N videos, K classes. Scores are (N, K); labels are (N,) int, or (N, K) bool for several labels per
video. Classes with equal scores rank by their index, the lowest first. A video without views has
no prediction and counts as wrong. Metrics are shares from 0 to 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nlnet.runs.ensembles import ENSEMBLES

# A metric of weighted videos: weights (R, N), how often each of R resamples has each video -> (R,)
Metric = Callable[[np.ndarray], np.ndarray]

RESAMPLES = 1000
CHUNK = 50  # resamples at a time: bounds the memory
EXACT_UP_TO = 1000  # disagreements; McNemar's test is approximate above


class Interval(NamedTuple):
    """A share and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def ranking(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the indices (N, min(k, K)) of the highest scores, best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def hits(
    scores: np.ndarray, labels: np.ndarray, k: int, has_views: np.ndarray | None = None
) -> np.ndarray:
    """Return whether one of the k best classes is a label: (N,) bool, False without views."""
    if labels.ndim == 1:
        # The rank of the label, without sorting all classes.
        of_label = scores[np.arange(len(labels)), labels][:, None]
        before = np.arange(scores.shape[1]) < labels[:, None]
        found = ((scores > of_label) | ((scores == of_label) & before)).sum(axis=1) < k
    else:
        found = np.take_along_axis(labels > 0, ranking(scores, k), axis=1).any(axis=1)
    return found if has_views is None else found & has_views


def share(flags: np.ndarray) -> Metric:
    """The share of videos whose flag (N,) is True: top-k accuracy, for flags of `hits`."""
    values = flags.astype(np.float64)
    return lambda weights: weights @ values / weights.sum(axis=1)


def mean_class(right: np.ndarray, labels: np.ndarray) -> Metric:
    """The accuracy of each class, averaged over the classes that have videos.

    Args:
        right: (N,) bool
        labels: (N,) int
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))  # of the videos of each class
    right_in_order = right[order]

    def metric(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, order]
        videos = np.add.reduceat(weights, starts, axis=1)
        hits_of = np.add.reduceat(weights * right_in_order, starts, axis=1)
        return _mean_over_present(hits_of, videos)

    return metric


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> Metric:
    """Average precision, averaged over the classes that have videos; labels are (N, K) bool."""

    def metric(weights: np.ndarray) -> np.ndarray:
        precisions = [
            weighted_average_precision(scores[:, k], labels[:, k], weights)
            for k in range(scores.shape[1])
        ]
        values = np.stack(precisions, axis=1)
        present = ~np.isnan(values)
        return np.where(present, values, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)

    return metric


def weighted_average_precision(
    scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the area under the precision-recall steps of one class; equal scores share a step.

    Args:
        scores: (N,)
        positive: (N,) bool
        weights: (R, N); None is one row of ones

    Returns:
        (R,) float64; NaN where no video is positive
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[:-1] != ranked[1:], True)  # the last video of each step
    weights = weights[:, order]
    found = np.cumsum(weights * positive[order], axis=1)[:, last]
    asked = np.cumsum(weights, axis=1)[:, last]
    new = np.diff(found, axis=1, prepend=0)
    area = (found / np.maximum(asked, 1) * new).sum(axis=1)
    total = found[:, -1]
    return np.where(total > 0, area / np.maximum(total, 1), np.nan)


def bootstrap(
    metric: Metric, num_videos: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return a metric with its 95 % interval: percentiles over resampled videos (Efron 1979)."""
    rng = np.random.default_rng(seed)
    values = []
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        drawn = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=count)
        values.append(metric(drawn.astype(np.float64)))
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return Interval(float(metric(np.ones((1, num_videos)))[0]), float(low), float(high))


class ViewPoint(NamedTuple):
    """What a part of the views of an evaluation reaches."""

    clips: int
    crops: int
    value: float


def spread_evenly(total: int, count: int) -> list[int]:
    """Return `count` of `total` numbers from 0, at the centers of equal segments."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def spread_ends(total: int, most: int) -> list[int]:
    """Return at most `most` of `total` numbers from 0, evenly spread, with the first and last."""
    return np.linspace(0, total - 1, min(most, total)).round().astype(int).tolist()


def metric_by_views(
    views: np.ndarray,
    view_video: np.ndarray,
    view_clip: np.ndarray,
    view_crop: np.ndarray,
    *,
    num_videos: int,
    ensemble: str,
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> list[ViewPoint]:
    """Return a metric for 1 clip, 2 clips, ... in time, with the center crop and with all crops.

    Of C clips, c are taken at the centers of c equal segments. The views that are taken make the
    scores of a video.

    Args:
        views: (V, K)
        view_video, view_clip, view_crop: (V,), as in nlnet.runs.scores
        ensemble: a name in ENSEMBLES
        metric: of the scores (N, K) of the videos, and of which videos (N,) have views
    """
    num_clips, num_crops = int(view_clip.max()) + 1, int(view_crop.max()) + 1
    points, combine = [], ENSEMBLES[ensemble]
    for crops in sorted({1, num_crops}):
        for clips in _few_counts(num_clips):
            totals = np.zeros((num_videos, views.shape[1]))
            num_views = np.zeros(num_videos, dtype=np.int64)
            for clip in spread_evenly(num_clips, clips):
                for crop in spread_evenly(num_crops, crops):
                    rows = np.flatnonzero((view_clip == clip) & (view_crop == crop))
                    videos = view_video[rows]  # each video once
                    combine.add(totals, videos, views[rows])
                    num_views[videos] += 1
            scores = combine.finish(totals, num_views)
            points.append(ViewPoint(clips, crops, metric(scores, num_views > 0)))
    return points


def _few_counts(total: int) -> list[int]:
    """Return all numbers from 1 to a small total; about 12 of them up to a large one."""
    return sorted({round(count) for count in np.linspace(1, total, min(total, 12))})


class Calibration(NamedTuple):
    """Confidence and accuracy in bins of equal width, without the empty ones."""

    edges: np.ndarray  # (B + 1,) of all bins
    counts: np.ndarray  # (B,)
    confidence: np.ndarray  # (B,): mean; NaN in an empty bin
    accuracy: np.ndarray  # (B,): share of right ones; NaN in an empty bin
    ece: float  # expected calibration error (Guo et al. 2017)


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Calibration:
    """Compare confidences (n,) in [0, 1] with how often they are right (n,) bool.

    A bin contains its upper edge, the first one also 0.
    """
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    filled = np.maximum(counts, 1)
    means = np.bincount(places, weights=confidence, minlength=bins) / filled
    shares = np.bincount(places, weights=right.astype(np.float64), minlength=bins) / filled
    ece = float((counts * np.abs(means - shares)).sum() / max(len(confidence), 1))
    empty = counts == 0
    return Calibration(
        edges, counts, np.where(empty, np.nan, means), np.where(empty, np.nan, shares), ece
    )


class McNemar(NamedTuple):
    """McNemar's test of two classifiers on the same videos."""

    only_first: int  # videos that only the first one gets right
    only_second: int
    p_value: float  # two-sided
    exact: bool  # binomial, else chi-square with continuity correction


def mcnemar(first: np.ndarray, second: np.ndarray, *, exact_up_to: int = EXACT_UP_TO) -> McNemar:
    """Test whether two classifiers, right on videos (N,) bool each, have the same accuracy.

    Exact (binomial) for up to `exact_up_to` disagreements (McNemar 1947, Edwards 1948).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total, fewer = only_first + only_second, min(only_first, only_second)
    if total <= exact_up_to:
        tail = sum(math.comb(total, i) for i in range(fewer + 1))
        p_value = min(1.0, 2 * tail / 2**total)
        return McNemar(only_first, only_second, p_value, exact=True)
    distance = max(abs(only_first - only_second) - 1, 0)
    p_value = math.erfc(distance / math.sqrt(2 * total))
    return McNemar(only_first, only_second, p_value, exact=False)


def _mean_over_present(right: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Average right / videos (R, K) over the classes that have videos: (R,)."""
    present = videos > 0
    shares = np.where(present, right / np.maximum(videos, 1), 0)
    return shares.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
