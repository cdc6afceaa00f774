"""Metrics of a batch, and of whole videos over all of their views and all ranks.

Classes with equal scores are ordered by their index, the lowest first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nlnet.clip import Failure
from nlnet.distributed.ranks import all_sum, gather_objects, gather_to_main
from nlnet.errors import UserError, choose
from nlnet.runs.ensembles import ENSEMBLES
from nlnet.runs.partial import ScorePart


def best_classes(scores: Tensor, k: int) -> Tensor:
    """Return the indices (B, min(k, K)) of the k highest scores (B, K), the highest first."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :k]


def is_right(classes: Tensor, label: Tensor) -> Tensor:
    """Return which of the classes (B, k) are right.

    A class is right if it is the label (B,), or has the largest share in a row of the labels
    (B, K). These are several labels of 1, or soft labels. No class of a row of zeros is right.
    """
    if label.ndim == 1:
        return classes == label[:, None]
    shares = label.gather(1, classes)
    return (shares > 0) & (shares >= label.amax(1, keepdim=True))


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Return the area under the precision-recall steps of one class.

    Equal scores have the same threshold.

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


@dataclass(frozen=True)
class Metrics:
    """The metrics of a split."""

    values: dict[str, float]  # in percent, by name
    main: str  # the name of the metric that selects the best checkpoint

    @property
    def score(self) -> float:
        """The value of the main metric."""
        return self.values[self.main]


class _Prediction(NamedTuple):
    """The prediction for one video. A video without views has class -1 and score 0."""

    video_id: int
    label: list[int]
    top1: int
    score: float
    top5: list[int]
    num_views: int


class Views(NamedTuple):
    """The probabilities of single views, sorted by video.

    The views of a video are in the order in which the loader gave them: clip by clip, and the
    crops of each clip.
    """

    probabilities: Tensor  # (V, K) float16
    video_id: Tensor  # (V,) int64


class VideoScores:
    """Collects the probabilities of the views of each video and computes the metrics.

    A video without views (it could not be read) counts as wrong. All views of a video must be
    added on one rank. Its sum in float64 then has the same order on any number of ranks, so that
    every result has the same bits.

    Args:
        labels: of all videos of the split, (N,) int64, or (N, K) with 1 at each of several labels
        num_classes: K
        ensemble: a name in ENSEMBLES
        keep_views: keep the probabilities of each view, for `views`; they need V * K * 2 bytes

    Raises:
        ArgumentError: the name is unknown.
    """

    def __init__(
        self,
        labels: Tensor,
        num_classes: int,
        ensemble: str = "mean",
        *,
        keep_views: bool = False,
    ) -> None:
        self.labels = labels
        self.ensemble = choose("ensemble", ensemble, ENSEMBLES)
        self.totals = torch.zeros(len(labels), num_classes, dtype=torch.float64)
        self.num_views = torch.zeros(len(labels), dtype=torch.int64)
        self.failures: list[Failure] = []
        self.keep_views = keep_views
        self.views: Views | None = None  # of all ranks, after `gather`, on rank 0
        self._views: list[Views] = []  # of this rank
        self._taken = 0, 0  # of these views and of the failures, those that `take` returned

    def add(self, probabilities: Tensor, video_id: Tensor) -> None:
        """Add views: their probabilities (B, K) and the rows (B,) of their videos."""
        rows = video_id.cpu()
        views = probabilities.double().cpu()
        self.ensemble.add(self.totals.numpy(), rows.numpy(), views.numpy())
        self.num_views.index_add_(0, rows, torch.ones_like(rows))
        if self.keep_views:
            self._views.append(Views(probabilities.half().cpu(), rows))

    def fail(self, failures: Iterable[Failure]) -> None:
        """Record videos that could not be read."""
        self.failures.extend(failures)

    def take(self) -> ScorePart:
        """Return the scores since the last call; all views of their videos must have been added.

        Views must be kept.
        """
        views, failures = self._views[self._taken[0] :], self.failures[self._taken[1] :]
        self._taken = len(self._views), len(self.failures)
        rows = torch.cat([torch.empty(0, dtype=torch.int64), *(part.video_id for part in views)])
        none = torch.empty(0, self.totals.shape[1], dtype=torch.float16)
        video = rows.unique()
        return ScorePart(
            video=video.numpy(),
            totals=self.totals[video].numpy(),
            num_views=self.num_views[video].numpy(),
            views=torch.cat([none, *(part.probabilities for part in views)]).numpy(),
            view_video=rows.numpy(),
            failures=failures,
        )

    def put(self, part: ScorePart) -> None:
        """Add the scores that `take` returned, with the same bits."""
        video = torch.from_numpy(part.video)
        self.totals[video] = torch.from_numpy(part.totals)
        self.num_views[video] = torch.from_numpy(part.num_views)
        self._views.append(Views(torch.from_numpy(part.views), torch.from_numpy(part.view_video)))
        self.failures.extend(part.failures)
        self._taken = len(self._views), len(self.failures)

    def gather(self) -> None:
        """Combine the views and failures of all ranks. Call it once on each rank, at the end.

        Raises UserError, on every rank, if a probability was not finite.
        """
        all_sum(self.totals)  # a rank without the views of a video adds exact zeros
        if not self.totals.isfinite().all():
            raise UserError(
                "the scores of the network are not finite, so that no accuracy can be given: its "
                "weights are not finite (did its training diverge?), or the precision is too low; "
                "use other weights or float32"
            )
        all_sum(self.num_views)
        self.failures = [failure for part in gather_objects(self.failures) for failure in part]
        if self.keep_views:
            self._gather_views()

    def _gather_views(self) -> None:
        parts = gather_to_main(self._views)
        self._views = []
        kept = [views for part in parts for views in part]
        if not kept:  # on other ranks than 0, or if no video could be read
            nothing = torch.empty(0, self.totals.shape[1], dtype=torch.float16)
            kept = [Views(nothing, torch.empty(0, dtype=torch.int64))]
        video_id = torch.cat([views.video_id for views in kept])
        order = video_id.argsort(stable=True)
        probabilities = torch.cat([views.probabilities for views in kept])
        self.views = Views(probabilities[order], video_id[order])

    @property
    def probabilities(self) -> Tensor:
        """The probabilities of the videos (N, K), float64; 0 if a video has no views."""
        scores = self.ensemble.finish(self.totals.numpy(), self.num_views.numpy())
        return torch.from_numpy(scores)

    def metrics(self) -> Metrics:
        """Compute the metrics.

        One label per video: `top1`, which is the main one, `top5`, and `mean_class`, the accuracy
        averaged over the classes that have videos. Several labels: `mean_ap`, average precision
        averaged over the classes that have videos.
        """
        if self.labels.ndim == 2:
            positive = self.labels > 0
            present = positive.any(0).nonzero().flatten().tolist()
            scores = self.probabilities
            precisions = [average_precision(scores[:, k], positive[:, k]) for k in present]
            return Metrics({"mean_ap": 100 * sum(precisions) / max(len(precisions), 1)}, "mean_ap")
        right = is_right(best_classes(self.totals, 5), self.labels)
        right &= (self.num_views > 0)[:, None]
        hits = torch.bincount(self.labels[right[:, 0]], minlength=self.totals.shape[1])
        videos = torch.bincount(self.labels, minlength=self.totals.shape[1])
        values = {
            "top1": 100 * float(right[:, 0].double().mean()),
            "top5": 100 * float(right.any(1).double().mean()),
            "mean_class": 100 * float((hits[videos > 0].double() / videos[videos > 0]).mean()),
        }
        return Metrics(values, "top1")

    def predictions(self) -> list[_Prediction]:
        """Return one row per video, in the order of the index."""
        scores, top5 = self.probabilities, best_classes(self.totals, 5).tolist()
        rows = []
        for i, num_views in enumerate(self.num_views.tolist()):
            label = self.labels[i]
            labels = [int(label)] if label.ndim == 0 else label.nonzero().flatten().tolist()
            if num_views == 0:
                rows.append(_Prediction(i, labels, -1, 0.0, [], 0))
            else:
                best = top5[i][0]
                rows.append(
                    _Prediction(i, labels, best, float(scores[i, best]), top5[i], num_views)
                )
        return rows
