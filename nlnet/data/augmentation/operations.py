"""The operations of RandAugment, on all frames of a clip at once.

An operation takes frames uint8 (T, 3, H, W) and an amount in [-1, 1]. It does the same to every
frame: statistics, such as the mean gray level, are those of the whole clip. Ranges and names are
those of Cubuk et al., "RandAugment", 2020. Pixels from outside a frame are gray.
"""

import math
from collections.abc import Callable

from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

GRAY = [128.0, 128.0, 128.0]
LARGEST_FACTOR = 0.9  # brightness, contrast, saturation and sharpness change by up to this share
LARGEST_ANGLE = 30.0  # degrees
LARGEST_SHEAR = math.degrees(math.atan(0.3))
LARGEST_SHIFT = 150 / 331  # share of the side

Operation = Callable[[Tensor, float], Tensor]


def _factor(amount: float) -> float:
    return 1 + LARGEST_FACTOR * amount


def _on_clip(change: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Apply a change that computes statistics to all frames as one tall image."""
    num_frames, channels, height, width = frames.shape
    image = frames.transpose(0, 1).reshape(channels, num_frames * height, width)
    return change(image).reshape(channels, num_frames, height, width).transpose(0, 1)


def _brightness(frames: Tensor, amount: float) -> Tensor:
    return F.adjust_brightness(frames, _factor(amount))


def _contrast(frames: Tensor, amount: float) -> Tensor:
    return _on_clip(lambda image: F.adjust_contrast(image, _factor(amount)), frames)


def _saturation(frames: Tensor, amount: float) -> Tensor:
    return F.adjust_saturation(frames, _factor(amount))


def _sharpness(frames: Tensor, amount: float) -> Tensor:
    return F.adjust_sharpness(frames, _factor(amount))


def _posterize(frames: Tensor, amount: float) -> Tensor:
    """Keep 8 to 4 bits of each value."""
    return F.posterize(frames, 8 - round(4 * abs(amount)))


def _solarize(frames: Tensor, amount: float) -> Tensor:
    """Invert the values from a threshold on, which is 256 to 0."""
    threshold = 256 * (1 - abs(amount))
    return frames if threshold > 255 else F.solarize(frames, threshold)


def _autocontrast(frames: Tensor, amount: float) -> Tensor:
    """Stretch each color to its full range; the amount has no meaning."""
    return _on_clip(F.autocontrast, frames)


def _equalize(frames: Tensor, amount: float) -> Tensor:
    """Give each color a flat histogram; the amount has no meaning."""
    return _on_clip(F.equalize, frames)


def _moved(
    frames: Tensor, *, angle: float = 0.0, shift: tuple[float, float] = (0, 0), shear_x: float = 0.0
) -> Tensor:
    return F.affine(
        frames,
        angle=angle,
        translate=list(shift),
        scale=1.0,
        shear=[shear_x, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=GRAY,
    )


def _rotate(frames: Tensor, amount: float) -> Tensor:
    return _moved(frames, angle=LARGEST_ANGLE * amount)


def _shear_x(frames: Tensor, amount: float) -> Tensor:
    return _moved(frames, shear_x=LARGEST_SHEAR * amount)


def _shear_y(frames: Tensor, amount: float) -> Tensor:
    return _shear_x(frames.transpose(2, 3), amount).transpose(2, 3)


def _translate_x(frames: Tensor, amount: float) -> Tensor:
    return _moved(frames, shift=(round(LARGEST_SHIFT * amount * frames.shape[3]), 0))


def _translate_y(frames: Tensor, amount: float) -> Tensor:
    return _moved(frames, shift=(0, round(LARGEST_SHIFT * amount * frames.shape[2])))


COLOR_OPERATIONS: dict[str, Operation] = {  # no pixel moves
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
OPERATIONS: dict[str, Operation] = COLOR_OPERATIONS | {
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
OPERATION_SETS: dict[str, dict[str, Operation]] = {"all": OPERATIONS, "color": COLOR_OPERATIONS}
