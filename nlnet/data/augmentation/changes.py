"""Random changes of a view; all frames of a clip get the same change."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nlnet.data.augmentation.operations import Operation

ERASED_AREA = (0.02, 1 / 3)  # share of the view
ERASED_ASPECTS = (0.3, 1 / 0.3)  # height over width
ERASING_ATTEMPTS = 10


@dataclass(frozen=True)
class RandAugment:
    """Random operations one after the other (Cubuk et al.), with random directions.

    `strength` is from 0 (no change) to 1. It is the same for each operation.
    """

    operations: dict[str, Operation]
    count: int
    strength: float

    def __call__(self, view: Tensor, rng: np.random.Generator) -> Tensor:
        names = list(self.operations)
        for _ in range(self.count):
            name = names[int(rng.integers(len(names)))]
            sign = 1 if rng.random() < 0.5 else -1
            if self.strength:
                view = self.operations[name](view, sign * self.strength)
        return view


@dataclass(frozen=True)
class RandomErasing:
    """Fill a random rectangle with noise, with a probability (Zhong et al.).

    The rectangle and its noise are the same in all frames. If no rectangle fits, nothing changes.
    """

    probability: float

    def __call__(self, view: Tensor, rng: np.random.Generator) -> Tensor:
        if rng.random() >= self.probability:
            return view
        height, width = view.shape[2:]
        for _ in range(ERASING_ATTEMPTS):
            area = height * width * rng.uniform(*ERASED_AREA)
            aspect = math.exp(rng.uniform(*np.log(ERASED_ASPECTS)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                noise = rng.integers(0, 256, (view.shape[1], h, w), dtype=np.uint8)
                view = view.clone()
                view[:, :, top : top + h, left : left + w] = torch.from_numpy(noise)
                return view
        return view
