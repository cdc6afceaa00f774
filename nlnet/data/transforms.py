"""Turn frames into views: choose a window of the source and resize it once, in uint8.

This file and those in augmentation/ import torchvision.transforms. The import takes seconds, so a
builder imports them only when it builds a loader. Sizes are in pixels. Resizing the window alone
costs an eighth of resizing whole frames. The only difference is that pixels outside the window do
not influence its border. All randomness comes from the generator that is passed in.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from nlnet.data.views import Transform, Window

ASPECT_RATIOS = (3 / 4, 4 / 3)  # width over height of a resized window
RESIZED_ATTEMPTS = 10


# frames (T, 3, S, S), generator -> changed frames of the same shape
Change = Callable[[Tensor, np.random.Generator], Tensor]
# (height, width, generator) -> window
Crop = Callable[[int, int, np.random.Generator], Window]


@dataclass(frozen=True)
class JitterCrop:
    """A random square of a frame whose short side has a random length (Simonyan & Zisserman).

    The length is uniform in [shortest, longest]. The square has the side `crop_size`.
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
    """A window with a random share of the area and a random aspect ratio (Szegedy et al.).

    The share is uniform in [smallest, largest]. If no window fits, the largest centered square is
    taken.
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


class ResizingTransform(Transform):
    """A transform that resizes its windows with bilinear weights of all pixels (antialiasing)."""

    def resized(self, frames: Sequence[np.ndarray] | np.ndarray, window: Window) -> Tensor:
        top, left, height, width = window
        pixels = np.stack([frame[top : top + height, left : left + width] for frame in frames])
        video = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # (T, 3, h, w)
        size = [*self.size(height, width)]
        return F.resize(video, size, InterpolationMode.BILINEAR, antialias=True)


@dataclass(frozen=True)
class TrainTransform(ResizingTransform):
    """One random view: crop, flip left-right with probability 1/2, change colors, other changes.

    The factors of brightness, contrast and saturation are uniform in [1 - s, 1 + s], with
    s = `color_jitter`. All frames have the same crop, flip and factors. `changes` follow in their
    order.
    """

    crop: Crop
    crop_size: int
    flip: bool
    color_jitter: float
    changes: tuple[Change, ...] = ()
    has_changes = True

    @property
    def needs_channels_last(self) -> bool:
        return bool(self.color_jitter or self.changes)

    def windows(self, height: int, width: int, rng: np.random.Generator) -> list[Window]:
        return [self.crop(height, width, rng)]

    def changed(self, view: Tensor, rng: np.random.Generator) -> Tensor:
        if self.flip and rng.random() < 0.5:
            view = F.horizontal_flip(view)
        if self.color_jitter:
            low, high = 1 - self.color_jitter, 1 + self.color_jitter
            brightness, contrast, saturation = rng.uniform(low, high, size=3)
            view = F.adjust_brightness(view, brightness)
            view = F.adjust_contrast(view, contrast)
            view = F.adjust_saturation(view, saturation)
        for change in self.changes:
            view = change(view, rng)
        return view


# Free pixels along a side -> offsets of three crops; the second is the center.
Offsets = Callable[[int], tuple[int, int, int]]


def spread(free: int) -> tuple[int, int, int]:
    """From end to end, the center rounded down."""
    return 0, free // 2, free


def stepped(free: int) -> tuple[int, int, int]:
    """Two equal steps in whole pixels: video-nonlocal-net, mmaction2."""
    return 0, free // 2, free // 2 * 2


def ceiled(free: int) -> tuple[int, int, int]:
    """From end to end, the center rounded up: PySlowFast, pytorchvideo."""
    return 0, -(-free // 2), free


CROPS: dict[str, Offsets] = {"spread": spread, "stepped": stepped, "ceiled": ceiled}


@dataclass(frozen=True)
class EvalTransform(ResizingTransform):
    """One or three squares of `crop_size` of a frame with the given short side.

    One square is at the center. Three squares are along the longer side, at `offsets`: left or top,
    center, right or bottom.
    """

    crop_size: int
    short_side: int
    num_crops: int
    offsets: Offsets = spread

    def windows(self, height: int, width: int, rng: np.random.Generator) -> list[Window]:
        side = _window_side(self.crop_size, self.short_side, height, width)
        tops, lefts = self.offsets(height - side), self.offsets(width - side)
        if self.num_crops == 1:
            corners = [(tops[1], lefts[1])]
        elif height > width:
            corners = [(top, lefts[1]) for top in tops]
        else:
            corners = [(tops[1], left) for left in lefts]
        return [Window(y, x, side, side) for y, x in corners]


@dataclass(frozen=True)
class WholeFrame(ResizingTransform):
    """The whole frame, resized to a short side of `crop_size`; frames keep their form."""

    crop_size: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        shorter = min(height, width)
        return round(height * self.crop_size / shorter), round(width * self.crop_size / shorter)

    def windows(self, height: int, width: int, rng: np.random.Generator) -> list[Window]:
        return [Window(0, 0, height, width)]


def _window_side(crop_size: int, short_side: int, height: int, width: int) -> int:
    """The side, in source pixels, of a `crop_size` square of a frame resized to `short_side`."""
    shorter = min(height, width)
    return min(max(round(crop_size * shorter / short_side), 1), shorter)
