"""From frames to square views: choose the window in the source, resize it once, stay uint8.

The only door to torchvision.transforms, which takes seconds to import: nlnet.data.build opens it
when it makes a loader. Sizes are in pixels. Cropping the window before the one resize costs an
eighth of resizing whole frames; its border sees no pixel from outside it, which is the one
difference. All randomness comes from the generator that is passed in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

ASPECT_RATIOS = (3 / 4, 4 / 3)  # width over height of a resized window
RESIZED_ATTEMPTS = 10


class Window(NamedTuple):
    """A rectangle of the source picture."""

    top: int
    left: int
    height: int
    width: int


# (height, width, generator) -> window
Crop = Callable[[int, int, np.random.Generator], Window]


@dataclass(frozen=True)
class JitterCrop:
    """A random square of a picture whose short side has a random length (Simonyan & Zisserman).

    The short side is uniform in [shortest, longest]; the square of `crop_size` is anywhere in it.
    """

    crop_size: int
    shortest: int
    longest: int

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Window:
        short_side = int(rng.integers(self.shortest, self.longest + 1))
        side = _window_side(self.crop_size, short_side, height, width)
        top = int(rng.integers(height - side + 1))
        return Window(top, int(rng.integers(width - side + 1)), side, side)


@dataclass(frozen=True)
class ResizedCrop:
    """A window of random aspect ratio and a random share of the area (Szegedy et al.).

    The share is uniform in [smallest, largest]; a square in the middle where none fits.
    """

    smallest: float
    largest: float

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Window:
        for _ in range(RESIZED_ATTEMPTS):
            area = height * width * rng.uniform(self.smallest, self.largest)
            aspect = math.exp(rng.uniform(*np.log(ASPECT_RATIOS)))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                top = int(rng.integers(height - h + 1))
                return Window(top, int(rng.integers(width - w + 1)), h, w)
        side = min(height, width)
        return Window((height - side) // 2, (width - side) // 2, side, side)


@dataclass(frozen=True)
class TrainTransform:
    """One random view: crop, flip left-right in half of the cases, change colours.

    `color_jitter` s draws the factors of brightness, contrast and saturation from [1 - s, 1 + s].
    Each is drawn once for all frames.
    """

    crop: Crop
    crop_size: int
    flip: bool
    color_jitter: float

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> list[Tensor]:
        height, width = frames.shape[1:3]
        view = _resized(frames, self.crop(height, width, rng), self.crop_size)
        if self.flip and rng.random() < 0.5:
            view = F.horizontal_flip(view)
        if self.color_jitter:
            low, high = 1 - self.color_jitter, 1 + self.color_jitter
            brightness, contrast, saturation = rng.uniform(low, high, size=3)
            view = F.adjust_brightness(view, brightness)
            view = F.adjust_contrast(view, contrast)
            view = F.adjust_saturation(view, saturation)
        return [_channels_first(view)]


# Room that a square has along a side -> where three of them stand; the second is the centre.
Places = Callable[[int], tuple[int, int, int]]


def spread(room: int) -> tuple[int, int, int]:
    """From end to end, the centre rounded down."""
    return 0, room // 2, room


def stepped(room: int) -> tuple[int, int, int]:
    """Two equal steps in whole pixels: video-nonlocal-net, mmaction2."""
    return 0, room // 2, room // 2 * 2


def ceiled(room: int) -> tuple[int, int, int]:
    """From end to end, the centre rounded up: PySlowFast, pytorchvideo."""
    return 0, -(-room // 2), room


CROPS: dict[str, Places] = {"spread": spread, "stepped": stepped, "ceiled": ceiled}


@dataclass(frozen=True)
class EvalTransform:
    """Squares of `crop_size` of the picture at one short side: the centre, or three.

    Three stand along the longer side: left or top, centre, right or bottom, at `places`.
    """

    crop_size: int
    short_side: int
    num_crops: int
    places: Places = spread

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> list[Tensor]:
        height, width = frames.shape[1:3]
        side = _window_side(self.crop_size, self.short_side, height, width)
        tops, lefts = self.places(height - side), self.places(width - side)
        if self.num_crops == 1:
            corners = [(tops[1], lefts[1])]
        elif height > width:
            corners = [(top, lefts[1]) for top in tops]
        else:
            corners = [(tops[1], left) for left in lefts]
        windows = [Window(y, x, side, side) for y, x in corners]
        return [_channels_first(_resized(frames, w, self.crop_size)) for w in windows]


def _window_side(crop_size: int, short_side: int, height: int, width: int) -> int:
    """Source pixels under a square of `crop_size` once the short side measures `short_side`."""
    shorter = min(height, width)
    return min(max(round(crop_size * shorter / short_side), 1), shorter)


def _resized(frames: np.ndarray, window: Window, size: int) -> Tensor:
    top, left, height, width = window
    pixels = frames[:, top : top + height, left : left + width]
    video = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)  # (T, 3, h, w)
    return F.resize(video, [size, size], InterpolationMode.BILINEAR, antialias=True)


def _channels_first(view: Tensor) -> Tensor:
    return view.transpose(0, 1).contiguous()  # (T, 3, S, S) -> (3, T, S, S)
