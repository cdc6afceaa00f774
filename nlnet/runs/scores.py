"""The scores of an evaluation, in one file: all classes, for each video and for each view.

The file is a NumPy archive without pickled objects: `np.load("scores.npz")` reads it outside nlnet
too. Its arrays have the names of the fields of `EvaluationScores`. It is not compressed: that takes
minutes for a large data set and saves little, as probabilities are close to random bits.

Scores of videos are kept in float64, as the evaluation computed them: each ranking of classes, and
so the top-1 accuracy, is exactly that of `metrics.json`. Scores of views are kept in float16, which
halves the largest array (474 MB for 19,761 videos, 30 views and 400 classes). They only serve
to compare numbers of views; the rounding changes a probability by less than 0.05 % of its value.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlnet.clip import Failure
from nlnet.errors import UserError
from nlnet.files import read_verified, write_atomic
from nlnet.runs.ensembles import ENSEMBLES

SCORES = "scores.npz"
# Exceptions of NumPy and of the reading below for a file with another content.
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError)


@dataclass(frozen=True)
class EvaluationScores:
    """N videos, V views, K classes.

    Rows of views are sorted by video, clip and crop. An unreadable video has no view.
    """

    paths: list[str]  # of the N videos
    class_names: list[str]  # of the K classes
    labels: np.ndarray  # (N,) int64, or (N, K) bool for several labels per video
    ensemble: str  # a name in ENSEMBLES
    totals: np.ndarray  # (N, K) float64: the sum ("mean") or maximum ("max") over views
    views: np.ndarray  # (V, K) float16: probabilities
    view_video: np.ndarray  # (V,) int32: the row of the video
    view_clip: np.ndarray  # (V,) int16: the clip in time, from 0
    view_crop: np.ndarray  # (V,) int16: the crop in space, from 0
    failures: list[Failure]  # unreadable videos

    @property
    def num_views(self) -> np.ndarray:
        """The number of views of each video: (N,) int64."""
        return np.bincount(self.view_video, minlength=len(self.paths))

    @property
    def probabilities(self) -> np.ndarray:
        """The scores of the videos: (N, K) float64, 0 for a video without views."""
        return ENSEMBLES[self.ensemble].finish(self.totals, self.num_views)


def write_scores(path: Path, scores: EvaluationScores) -> None:
    """Write the file whole or not at all; raises UserError if it cannot be written."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        paths=_text_array(scores.paths),
        class_names=_text_array(scores.class_names),
        labels=scores.labels,
        ensemble=_text_array([scores.ensemble]),
        totals=scores.totals,
        views=scores.views,
        view_video=scores.view_video,
        view_clip=scores.view_clip,
        view_crop=scores.view_crop,
        failures=_text_array([text for failure in scores.failures for text in failure]),
    )
    write_atomic(path, buffer.getbuffer())


def read_scores(path: Path) -> EvaluationScores:
    """Read what `write_scores` wrote.

    Raises UserError if the file is missing, damaged or something else.
    """
    try:
        with np.load(io.BytesIO(read_verified(path)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        failures = arrays["failures"].tolist()
        scores = EvaluationScores(
            paths=arrays["paths"].tolist(),
            class_names=arrays["class_names"].tolist(),
            labels=arrays["labels"],
            ensemble=arrays["ensemble"].tolist()[0],
            totals=arrays["totals"],
            views=arrays["views"],
            view_video=arrays["view_video"],
            view_clip=arrays["view_clip"],
            view_crop=arrays["view_crop"],
            failures=[Failure(*pair) for pair in zip(failures[::2], failures[1::2], strict=True)],
        )
        _check(scores)
    except (*MALFORMED, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: is not a file of scores ({error}); run tools/eval.py again"
        ) from error
    return scores


def _text_array(texts: list[str]) -> np.ndarray:
    return np.array(texts, dtype=np.str_)


def _check(scores: EvaluationScores) -> None:
    """Raise ValueError unless the shapes agree with one another."""
    videos, classes, views = len(scores.paths), len(scores.class_names), len(scores.view_video)
    shapes = {
        "totals": (scores.totals, (videos, classes)),
        "views": (scores.views, (views, classes)),
        "view_clip": (scores.view_clip, (views,)),
        "view_crop": (scores.view_crop, (views,)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape}, not {shape}")
    if scores.labels.shape not in ((videos,), (videos, classes)):
        raise ValueError(f"labels have the shape {scores.labels.shape} for {videos} videos")
    if scores.ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble {scores.ensemble!r} is unknown")
    if views and not 0 <= scores.view_video.min() <= scores.view_video.max() < videos:
        raise ValueError("view_video names a video that is not in the file")
