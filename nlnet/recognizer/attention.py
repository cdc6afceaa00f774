"""What a network attends to in a clip: rows of non-local blocks, in coordinates of the clip.

The positions of a map are taken to be equal parts of the clip: position i of n covers the pixels
from i/n to (i + 1)/n of the side. Convolutions see beyond these parts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nlnet.errors import ArgumentError, UserError
from nlnet.model.classifier import VideoClassifier
from nlnet.model.non_local.rows import (
    BLOCK_TYPES,
    Position,
    Rows,
    attention_rows,
    mean_row,
    most_concentrated_query,
)

AUTO, ALL = "auto", "all"
Record = Callable[[str, nn.Module, Tensor], None]
GRADCAM = "use method gradcam, which works for every network"


@dataclass(frozen=True)
class AttentionMap:
    """Weights over the positions of one layer, for one query."""

    layer: str  # a block such as res4.nl3, or a stage
    query: Position | None  # (t, y, x) in frames and pixels of the clip; None if there is none
    terms: dict[str, np.ndarray]  # pairwise, unary or gradcam -> (T', H', W') float
    map_sizes: Position  # T, H, W of the layer's map
    kernel: Position  # positions of the map that one weight covers
    clip_sizes: Position  # T, H, W of the clip
    softmax: bool  # a term is >= 0 and has the sum 1

    @property
    def weights(self) -> np.ndarray:
        """The sum of the terms, (T', H', W')."""
        return np.sum(list(self.terms.values()), axis=0)

    @property
    def cells(self) -> np.ndarray:
        """The weight that each pixel belongs to, as an index of the flat weights: (T, H, W).

        It is -1 for pixels that no key covers, because pooling drops an incomplete window.
        """
        shape = self.weights.shape
        owners = []
        for clip, size, kernel, count in zip(
            self.clip_sizes, self.map_sizes, self.kernel, shape, strict=True
        ):
            key = (np.arange(clip) * size // clip) // kernel
            owners.append(np.where(key < count, key, -1))
        t, y, x = np.meshgrid(*owners, indexing="ij")
        cells = (t * shape[1] + y) * shape[2] + x
        return np.where((t < 0) | (y < 0) | (x < 0), -1, cells)

    def on_clip(self, weights: np.ndarray) -> np.ndarray:
        """Spread weights (T', H', W') evenly over their pixels: (T, H, W), with the same sum."""
        cells = self.cells
        covered = cells >= 0
        counts = np.bincount(cells[covered], minlength=weights.size)
        spread = weights.flatten() / np.maximum(counts, 1)
        return np.where(covered, spread[cells], 0.0)

    def center(self, key: Position) -> Position:
        """The middle pixel of the part of the clip that a weight covers."""
        middle = []
        for i, kernel, size, clip in zip(
            key, self.kernel, self.map_sizes, self.clip_sizes, strict=True
        ):
            middle.append(min(int((i + 0.5) * kernel * clip / size), clip - 1))
        return middle[0], middle[1], middle[2]

    def strongest(self, count: int) -> list[tuple[Position, float]]:
        """The positions of the clip with the largest absolute weights, and the weights."""
        weights = self.weights
        order = np.argsort(-np.abs(weights), axis=None, kind="stable")[:count]
        keys = np.array(np.unravel_index(order, weights.shape)).T.tolist()
        return [(self.center((t, y, x)), float(weights[t, y, x])) for t, y, x in keys]


@dataclass(frozen=True)
class VideoAttention:
    """What a network attends to in one clip of a video."""

    video: str
    frames: np.ndarray  # the clip that the network saw: uint8 (T, S, S, 3)
    class_names: tuple[str, ...]
    probabilities: np.ndarray  # (K,) of this clip
    maps: tuple[AttentionMap, ...]

    @property
    def predicted(self) -> int:
        """The number of the most probable class."""
        return int(self.probabilities.argmax())


def attention_blocks(model: VideoClassifier) -> dict[str, nn.Module]:
    """The non-local blocks of a network by their names, such as res4.nl3, in order."""
    return {
        name: module
        for name, module in model.backbone.named_modules()
        if isinstance(module, BLOCK_TYPES)
    }


def attend(
    model: VideoClassifier, clip: Tensor, *, query: Position | str, block: str | None
) -> tuple[Tensor, list[AttentionMap]]:
    """The probabilities (K,) of a clip, and the row of a query in each block.

    Args:
        model: in eval mode
        clip: pixels (1, 3, T, H, W) of uint8
        query: (t, y, x) in frames and pixels of the clip. "auto" is the query whose row has the
            fewest effective positions, the exponential of the entropy of its absolute weights.
            "all" is the mean of the rows of all positions
        block: the name of one block; None is all blocks

    Raises:
        UserError: the network has no such block or no block at all, a block has no rows, or the
            query is outside the clip.
    """
    sizes = _sizes(clip)
    if isinstance(query, tuple):
        _check_query(query, sizes)
    elif query not in (AUTO, ALL):
        raise UserError(f"query={query} is not a position (t, y, x), {AUTO} or {ALL}")
    blocks = attention_blocks(model)
    if not blocks:
        raise UserError(f"the network has no non-local block; {GRADCAM}")
    if block is not None and block not in blocks:
        raise UserError(f"block={block}: no such block; choose one of: {', '.join(blocks)}")
    chosen = blocks if block is None else {block: blocks[block]}
    maps: list[AttentionMap] = []

    def record(name: str, module: nn.Module, x: Tensor) -> None:
        maps.append(_attention_map(name, module, x, query, sizes))

    with _inputs(chosen, record), torch.inference_mode():
        probabilities = model.scores(clip)[0]
    return probabilities, maps


def _check_query(query: Position, sizes: Position) -> None:
    """Raise UserError if a query is outside a clip of T frames of H x W pixels."""
    if not all(0 <= i < size for i, size in zip(query, sizes, strict=True)):
        t, h, w = sizes
        raise UserError(
            f"query={','.join(map(str, query))} is outside the clip of {t} frames of {h} x {w} "
            f"pixels; give t,y,x from 0,0,0 to {t - 1},{h - 1},{w - 1}"
        )


def _attention_map(
    name: str, block: nn.Module, x: Tensor, query: Position | str, sizes: Position
) -> AttentionMap:
    map_sizes = _sizes(x)
    try:
        position = None if query == ALL else _map_position(block, x, query, sizes)
        rows = mean_row(block, x) if position is None else attention_rows(block, x, [position])
    except ArgumentError as error:
        raise UserError(f"{name}: {error}") from error
    at = None
    if position is not None and not rows.shared:
        middle = (
            int((i + 0.5) * c / m) for i, c, m in zip(position, sizes, map_sizes, strict=True)
        )
        t, y, x_ = query if isinstance(query, tuple) else middle
        at = t, y, x_
    return AttentionMap(
        layer=name,
        query=at,
        terms=_arrays(rows),
        map_sizes=map_sizes,
        kernel=rows.kernel,
        clip_sizes=sizes,
        softmax=rows.softmax,
    )


def _map_position(block: nn.Module, x: Tensor, query: Position | str, sizes: Position) -> Position:
    """The position of the map that holds a query of the clip."""
    if not isinstance(query, tuple):
        return most_concentrated_query(block, x)
    t, y, x_ = (q * m // c for q, m, c in zip(query, _sizes(x), sizes, strict=True))
    return t, y, x_


def _arrays(rows: Rows) -> dict[str, np.ndarray]:
    return {name: weights[0].double().cpu().numpy() for name, weights in rows.terms.items()}


def _sizes(x: Tensor) -> Position:
    t, h, w = x.shape[2:]
    return t, h, w


@contextmanager
def _inputs(blocks: dict[str, nn.Module], record: Record) -> Iterator[None]:
    """Call `record(name, block, x)` with the map x that enters each block."""
    hooks = [
        block.register_forward_pre_hook(
            lambda module, inputs, name=name: record(name, module, inputs[0])
        )
        for name, block in blocks.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
