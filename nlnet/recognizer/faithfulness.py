"""Whether an attention map tells what a network uses, as numbers."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlnet.model.classifier import VideoClassifier
from nlnet.recognizer.attention import ALL, AttentionMap
from nlnet.recognizer.methods import maps_of

STEPS = 10  # of a deletion curve
ORDERS = 3  # random orders to compare with
BLUR = 1 / 4  # standard deviation of the blur, of the sides and of the length of the clip


@dataclass(frozen=True)
class _Deletion:
    """Probabilities of the predicted class while parts of a clip are blurred."""

    shares: np.ndarray  # (n,) share of the positions that are blurred, from 0 to 1
    attended: np.ndarray  # (n,) the positions with the largest weights first
    random: np.ndarray  # (n,) the mean over random orders of the same positions

    @property
    def area_between(self) -> float:
        """The area between both curves; it is positive if attended positions matter more."""
        return float(np.trapezoid(self.random - self.attended, self.shares))


@dataclass(frozen=True)
class LayerScore:
    """The deletion scores of one layer on some clips."""

    layer: str
    curves: list[_Deletion]  # of each clip

    @property
    def mean_area(self) -> float:
        """The mean area between the curves of random and of attended positions."""
        return float(np.mean([curve.area_between for curve in self.curves]))

    @property
    def share_faster(self) -> float:
        """The share of clips whose probability falls faster than for random positions."""
        return float(np.mean([curve.area_between > 0 for curve in self.curves]))

    @property
    def probabilities(self) -> tuple[float, float]:
        """The mean probability of the predicted class: of the clips, and of the blurred clips."""
        ends = [(curve.attended[0], curve.attended[-1]) for curve in self.curves]
        clear, blurred = np.mean(ends, axis=0).tolist()
        return clear, blurred


class _RegionShare(NamedTuple):
    """How much of an attention map and of the clip a region holds, both from 0 to 1."""

    mass: float
    area: float

    @property
    def ratio(self) -> float:
        """The mass over the area: 1 is attention that ignores the region."""
        return self.mass / self.area


def share_in_region(attention: AttentionMap, inside: np.ndarray) -> _RegionShare:
    """The share of the attention in a region of the clip, and the region's share of the clip.

    `inside` (T, H, W) is the part of each pixel that belongs to the region, from 0 to 1. The
    weight of a position is spread evenly over its pixels. Rows with signs are measured by their
    absolute values.
    """
    weights = np.abs(attention.on_clip(attention.weights))
    return _RegionShare(float((weights * inside).sum() / weights.sum()), float(inside.mean()))


def score_layers(
    model: VideoClassifier, clips: Iterable[Tensor], *, method: str, seconds: float
) -> list[LayerScore]:
    """The deletion scores of each layer, for the mean of the rows of all positions.

    Args:
        model: in eval mode
        clips: pixels (1, 3, T, H, W) of uint8
        method: a name in METHODS
        seconds: no further clip is scored after this time

    Raises:
        UserError: a block has no rows.
    """
    start = time.monotonic()
    curves: dict[str, list[_Deletion]] = {}
    for clip in clips:
        _, maps = maps_of(model, clip, query=ALL, block=None, method=method)
        for each in maps:
            curves.setdefault(each.layer, []).append(deletion(model, clip, each))
        if time.monotonic() - start > seconds:
            break
    return [LayerScore(layer, of_layer) for layer, of_layer in curves.items()]


@torch.inference_mode()
def deletion(
    model: VideoClassifier,
    clip: Tensor,
    attention: AttentionMap,
    *,
    steps: int = STEPS,
    orders: int = ORDERS,
    seed: int = 0,
) -> _Deletion:
    """Blur more and more positions of a clip, the most attended first, or in random order.

    A position is blurred in the clip's pixels that it covers. The absolute weights give the order.

    Args:
        model: in eval mode
        clip: pixels (1, 3, T, H, W) of uint8
        attention: a map of this clip
        steps: the curve has steps + 1 points
        orders: random orders, drawn from `seed`
    """
    cells = torch.from_numpy(attention.cells).to(clip.device)
    blurred = blur(clip)
    label = int(model.scores(clip)[0].argmax())
    weights = attention.weights.flatten()
    rng = np.random.default_rng(seed)
    shares = np.linspace(0, 1, steps + 1)

    def curve(order: np.ndarray) -> np.ndarray:
        place = torch.empty(len(order) + 1, dtype=torch.int64, device=clip.device)
        place[torch.from_numpy(order.copy())] = torch.arange(len(order), device=clip.device)
        place[-1] = len(order)  # pixels without a position, whose cell is -1, are never blurred
        ranks = place[cells]
        return np.array(
            [
                float(
                    model.scores(torch.where(ranks < share * len(order), blurred, clip))[0, label]
                )
                for share in shares
            ]
        )

    attended = curve(np.argsort(-np.abs(weights), kind="stable"))
    random = np.mean([curve(rng.permutation(len(weights))) for _ in range(orders)], axis=0)
    return _Deletion(shares, attended, random)


def blur(clip: Tensor) -> Tensor:
    """Blur pixels (1, 3, T, H, W) in space and time with Gaussians of BLUR times each size."""
    smooth = clip.float()
    for dimension, size in enumerate(clip.shape[2:], start=2):
        at = torch.arange(size, device=clip.device)
        kernel = torch.exp(-0.5 * ((at[:, None] - at) / (BLUR * size)) ** 2)
        kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (size, size), rows have the sum 1
        smooth = (smooth.movedim(dimension, -1) @ kernel.mT).movedim(-1, dimension)
    return smooth.round().clamp(0, 255).to(clip.dtype)
