"""How the scores of the views of a video become its own scores: pure functions over arrays."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Ensemble(NamedTuple):
    """How the scores of views are combined, in two steps.

    `add` adds views (V, K) to the rows (V,) of the totals (N, K) in place, in their order, so that
    every sum has the same bits on every machine. `finish` returns the scores (N, K) for totals and
    the number of views (N,) of each video; they are 0 for a video without views. The totals begin
    at 0.
    """

    add: Callable[[np.ndarray, np.ndarray, np.ndarray], None]
    finish: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _mean(totals: np.ndarray, num_views: np.ndarray) -> np.ndarray:
    return totals / np.maximum(num_views, 1)[:, None]


def _maximum(totals: np.ndarray, num_views: np.ndarray) -> np.ndarray:
    return totals


ENSEMBLES: dict[str, Ensemble] = {
    "mean": Ensemble(np.add.at, _mean),
    "max": Ensemble(np.maximum.at, _maximum),  # per class; no probability is below 0
}
