"""From scores to numbers: hits of a batch, and the scores of whole videos over all views and ranks.

Classes with equal scores rank by their index, the lowest first.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from nlnet.checks import one_of
from nlnet.clip import Failure
from nlnet.distributed.ranks import all_sum, gather_objects


def best_classes(scores: Tensor, k: int) -> Tensor:
    """Indices (B, min(k, K)) of the highest scores (B, K), best first."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :k]


def is_right(classes: Tensor, label: Tensor) -> Tensor:
    """Whether each of the classes (B, k) is a label (B,) or among several labels (B, K)."""
    if label.ndim == 1:
        return classes == label[:, None]
    return label.gather(1, classes) > 0


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Area under the precision-recall steps of one class; equal scores share a threshold.

    Args:
        scores: (N,)
        positive: (N,) bool with at least one True
    """
    order = scores.argsort(descending=True)
    ranked = scores[order]
    is_threshold = torch.ones_like(positive)
    is_threshold[:-1] = ranked[:-1] != ranked[1:]
    hits = positive[order].cumsum(0)[is_threshold].double()
    asked = torch.arange(1, len(scores) + 1)[is_threshold]
    new_hits = hits.diff(prepend=hits.new_zeros(1))
    return float((hits / asked * new_hits).sum() / hits[-1])


class Prediction(NamedTuple):
    """What was said about one video; one without views has class -1 and score 0."""

    video_id: int
    label: list[int]
    top1: int
    score: float
    top5: list[int]
    num_views: int


class Ensemble(NamedTuple):
    """How the probabilities of the views of a video make its own."""

    add: Callable[[Tensor, Tensor, Tensor], Tensor]  # views (B, K) of videos (B,) to totals (N, K)
    finish: Callable[[Tensor, Tensor], Tensor]  # totals (N, K), numbers of views (N, 1) -> (N, K)


ENSEMBLES: dict[str, Ensemble] = {
    "mean": Ensemble(
        lambda totals, rows, views: totals.index_add_(0, rows, views),
        lambda totals, num_views: totals / num_views.clamp(min=1),
    ),
    "max": Ensemble(  # of each class; probabilities are not below the 0 of the first totals
        lambda totals, rows, views: totals.scatter_reduce_(
            0, rows[:, None].expand_as(views), views, "amax"
        ),
        lambda totals, num_views: totals,
    ),
}


class VideoScores:
    """The probabilities of each video, from those of its views.

    A video without any view (it could not be read) counts as wrong. All views of a video must be
    added on one rank: its sum, in float64, then has the same order, and every result the same
    bits, on any number of ranks.

    Args:
        labels: of all videos of the split, (N,) int64 or (N, K) with 1 at each of several labels
        num_classes: K
        ensemble: a name in ENSEMBLES
    """

    def __init__(self, labels: Tensor, num_classes: int, ensemble: str = "mean") -> None:
        self.labels = labels
        self.ensemble = one_of("ensemble", ensemble, ENSEMBLES)
        self.totals = torch.zeros(len(labels), num_classes, dtype=torch.float64)
        self.num_views = torch.zeros(len(labels), dtype=torch.int64)
        self.failures: list[Failure] = []

    def add(self, probabilities: Tensor, video_id: Tensor) -> None:
        """Count views in: probabilities (B, K) and the rows (B,) of their videos."""
        rows = video_id.cpu()
        self.ensemble.add(self.totals, rows, probabilities.double().cpu())
        self.num_views.index_add_(0, rows, torch.ones_like(rows))

    def fail(self, failures: Iterable[Failure]) -> None:
        """Keep the causes of videos that could not be read."""
        self.failures.extend(failures)

    def gather(self) -> None:
        """Bring the views and failures of all ranks to each of them; call it once, at the end."""
        all_sum(self.totals)  # a sum with exact zeros of the ranks that have not seen the video
        all_sum(self.num_views)
        self.failures = [failure for part in gather_objects(self.failures) for failure in part]

    @property
    def probabilities(self) -> Tensor:
        """(N, K) float64, 0 where a video has no view."""
        return self.ensemble.finish(self.totals, self.num_views[:, None])

    def summary(self) -> dict[str, float]:
        """The metrics in percent; the first one is the one to choose a model by.

        One label a video: top1, top5, mean_class (accuracy averaged over the classes that have
        videos). Several: mean_ap, average precision averaged over the classes that have videos.
        """
        if self.labels.ndim == 2:
            positive = self.labels > 0
            present = positive.any(0).nonzero().flatten().tolist()
            scores = self.probabilities
            precisions = [average_precision(scores[:, k], positive[:, k]) for k in present]
            return {"mean_ap": 100 * sum(precisions) / max(len(precisions), 1)}
        right = is_right(best_classes(self.totals, 5), self.labels)
        right &= (self.num_views > 0)[:, None]
        hits = torch.bincount(self.labels[right[:, 0]], minlength=self.totals.shape[1])
        videos = torch.bincount(self.labels, minlength=self.totals.shape[1])
        return {
            "top1": 100 * float(right[:, 0].double().mean()),
            "top5": 100 * float(right.any(1).double().mean()),
            "mean_class": 100 * float((hits[videos > 0].double() / videos[videos > 0]).mean()),
        }

    def predictions(self) -> list[Prediction]:
        """One row a video, in the order of the index."""
        scores, top5 = self.probabilities, best_classes(self.totals, 5).tolist()
        rows = []
        for i, num_views in enumerate(self.num_views.tolist()):
            label = self.labels[i]
            labels = [int(label)] if label.ndim == 0 else label.nonzero().flatten().tolist()
            if num_views == 0:
                rows.append(Prediction(i, labels, -1, 0.0, [], 0))
            else:
                best = top5[i][0]
                rows.append(Prediction(i, labels, best, float(scores[i, best]), top5[i], num_views))
        return rows
