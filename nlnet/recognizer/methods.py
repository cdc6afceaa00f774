"""The methods that show what a network attends to, by their names."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from nlnet.errors import UserError
from nlnet.model.classifier import VideoClassifier
from nlnet.model.non_local.rows import Position
from nlnet.recognizer.attention import AttentionMap, attend
from nlnet.recognizer.gradcam import gradcam

ROWS = "rows"
GRADCAM = "gradcam"
Maps = tuple[Tensor, list[AttentionMap]]


def maps_of(
    model: VideoClassifier,
    clip: Tensor,
    *,
    query: Position | str,
    block: str | None,
    method: str,
) -> tuple[np.ndarray, tuple[AttentionMap, ...]]:
    """The probabilities (K,) of a clip and the maps of a method: see Recognizer.attention."""
    if method not in METHODS:
        raise UserError(f"method={method} is unknown; choose one of: {', '.join(METHODS)}")
    probabilities, maps = METHODS[method](model, clip, query, block)
    return probabilities.double().cpu().numpy(), tuple(maps)


def _rows(model: VideoClassifier, clip: Tensor, query: Position | str, block: str | None) -> Maps:
    return attend(model, clip, query=query, block=block)


def _gradcam(
    model: VideoClassifier, clip: Tensor, query: Position | str, block: str | None
) -> Maps:
    probabilities, attention = gradcam(model, clip, layer=block)  # it has no query
    return probabilities, [attention]


METHODS: dict[str, Callable[[VideoClassifier, Tensor, Position | str, str | None], Maps]] = {
    ROWS: _rows,
    GRADCAM: _gradcam,
}
