"""How often each video is drawn."""

import math
from pathlib import Path

import numpy as np

from nlnet.data.index.text import text_lines
from nlnet.data.index.video_index import VideoIndex
from nlnet.errors import UserError


def balanced_weights(index: VideoIndex, balance: float) -> np.ndarray:
    """Weights (N,) in proportion to n^-balance, for the n videos of the class of a video.

    A video with several labels has the mean of their weights. Videos without a label are a class
    of their own.
    """
    labels = index.labels
    of_class = np.maximum(index.class_counts, 1.0) ** -balance
    if labels.ndim == 1:
        return of_class[labels]
    counts = (labels > 0).sum(1)
    unlabeled = np.maximum((counts == 0).sum(), 1.0) ** -balance
    return np.where(counts > 0, (labels > 0) @ of_class / np.maximum(counts, 1), unlabeled)


def read_video_weights(path: Path, folder: Path, index: VideoIndex) -> np.ndarray:
    """The weights (N,) in a file with a line `path weight` for each video whose weight is not 1.

    Paths are relative to `folder`. Raises UserError, with the line, for a path that is not a video
    of the split, for a weight that is negative or no number, and if no weight is above 0.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a file with lines `path weight`")
    rows = {str(index.path(i)): i for i in range(len(index))}
    weights = np.ones(len(index))
    for place, text in text_lines(path):
        name, _, word = text.rpartition(" ")
        row = rows.get(str(folder / name.strip()))
        if row is None:
            raise UserError(
                f"{place}: {name.strip() or word!r} is not a video of the training "
                f"split; give paths relative to {folder}"
            )
        weights[row] = _weight(word, place)
    if not weights.any():
        raise UserError(f"{path}: all weights are 0; give one video a weight above 0")
    return weights


def _weight(word: str, where: str) -> float:
    try:
        weight = float(word)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise UserError(f"{where}: the weight {word!r} must be a number, 0 or more")
    return weight
