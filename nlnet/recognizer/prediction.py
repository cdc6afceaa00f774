"""What a recognizer returns: named classes with probabilities, for a video or a part of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from nlnet.trainer.metrics import best_classes


class ClassScore(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class VideoPrediction:
    """The most probable classes of one video, the first is the best; or why there are none."""

    video: str
    top: tuple[ClassScore, ...]
    error: str | None = None  # None if the video was read

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.video}\n   cannot be read: {self.error}"
        return "\n".join([self.video, *_score_lines(self.top)])


@dataclass(frozen=True)
class WindowPrediction:
    """The most probable classes of a part of a video."""

    start: float  # seconds since the first frame
    end: float
    top: tuple[ClassScore, ...]
    probabilities: np.ndarray  # (K,) float64, of all classes

    def __str__(self) -> str:
        scores = "  ".join(f"{each.name} {100 * each.probability:.1f} %" for each in self.top)
        return f"{self.start:.1f} - {self.end:.1f} s  {scores}"


@dataclass(frozen=True)
class Features:
    """The pooled features of n parts of a video: the classifier's input, averaged over views."""

    values: np.ndarray  # (n, C) float32
    start: np.ndarray  # (n,) float64, seconds since the first frame
    end: np.ndarray  # (n,)


def top_classes(probabilities: Tensor, names: Sequence[str], count: int) -> tuple[ClassScore, ...]:
    """The `count` most probable classes of probabilities (K,); equal ones by their number."""
    best = best_classes(probabilities[None], count)[0].tolist()
    return tuple(ClassScore(names[k], float(probabilities[k])) for k in best)


def boundaries(parts: Sequence[WindowPrediction]) -> np.ndarray:
    """Times (n + 1,): window i is shown from time i to time i + 1, although windows may overlap.

    Each time is halfway between the centers of two windows. The first is the start of the video,
    the last its end.
    """
    centers = np.array([(part.start + part.end) / 2 for part in parts])
    return np.array([parts[0].start, *(centers[:-1] + centers[1:]) / 2, parts[-1].end])


def _score_lines(top: Sequence[ClassScore]) -> list[str]:
    """One line for each class: percent and name."""
    return [f"   {100 * each.probability:5.1f} %  {each.name}" for each in top]
