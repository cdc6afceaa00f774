"""Every operation of RandAugment: laws of all, and an independent form of each."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nlnet.data.augmentation.operations import (
    COLOR_OPERATIONS,
    LARGEST_FACTOR,
    LARGEST_SHIFT,
    OPERATIONS,
)

WITHOUT_STRENGTH = {"autocontrast", "equalize"}
SIGNED = set(OPERATIONS) - WITHOUT_STRENGTH - {"posterize", "solarize"}
# The new value of a pixel depends on its old value and on statistics of the clip alone.
POINTWISE = set(COLOR_OPERATIONS) - {"sharpness"}
AMOUNTS = (-1.0, -0.5, 0.3, 1.0)


def noise(seed: int = 0, num_frames: int = 3, size: int = 20) -> Tensor:
    """Frames with smooth random colors, none of them black or white."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (num_frames, 3, size // 4, size // 4), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(4, 2).repeat(4, 3))


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_shape_and_type_stay(name: str, amount: float):
    frames = noise()
    before = frames.clone()
    out = OPERATIONS[name](frames, amount)
    assert (out.shape, out.dtype) == (frames.shape, torch.uint8)
    assert torch.equal(frames, before)  # the input is not changed
    assert not torch.equal(out, frames)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - WITHOUT_STRENGTH))
def test_an_amount_of_0_changes_nothing(name: str):
    assert torch.equal(OPERATIONS[name](noise(), 0.0), noise())


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_all_frames_get_the_same_change(name: str, amount: float):
    frames = noise(num_frames=4)
    frames[3] = frames[1]
    out = OPERATIONS[name](frames, amount)
    assert torch.equal(out[3], out[1])
    order = [2, 0, 3, 1]
    assert torch.equal(OPERATIONS[name](frames[order], amount), out[order])


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", sorted(POINTWISE))
def test_equal_colors_of_different_frames_stay_equal(name: str, amount: float):
    """Frames of different brightness: a statistic of each frame would break this law."""
    frames = torch.cat([noise(0), noise(1) // 2 + 60])
    out = OPERATIONS[name](frames, amount)
    colors: dict[tuple[int, ...], tuple[int, ...]] = {}
    olds = frames.permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    news = out.permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    for old, new in zip(olds, news, strict=True):
        assert colors.setdefault(tuple(old), tuple(new)) == tuple(new)


@pytest.mark.parametrize("name", sorted(SIGNED))
def test_the_sign_of_the_amount_is_a_direction(name: str):
    assert not torch.equal(OPERATIONS[name](noise(), 0.5), OPERATIONS[name](noise(), -0.5))


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - SIGNED))
def test_other_operations_have_no_direction(name: str):
    assert torch.equal(OPERATIONS[name](noise(), 0.5), OPERATIONS[name](noise(), -0.5))


def gray(values: np.ndarray) -> np.ndarray:
    """Rec. 601 luma (T, 1, H, W) of (T, 3, H, W)."""
    return np.tensordot(values, [0.2989, 0.587, 0.114], (1, 0))[:, None]


def between(target: np.ndarray, values: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(target + factor * (values - target), 0, 255)


def smoothed(values: np.ndarray) -> np.ndarray:
    """The mean of 3 x 3 pixels in which the center counts five times; the border stays."""
    out = values.copy()
    parts = [values[..., 1 + i : 1 + i - 2 or None, :] for i in (-1, 0, 1)]
    total = sum(part[..., 1 + j : 1 + j - 2 or None] for part in parts for j in (-1, 0, 1))
    out[..., 1:-1, 1:-1] = (total + 4 * values[..., 1:-1, 1:-1]) / 13
    return out


def solarized(values: np.ndarray, amount: float) -> np.ndarray:
    return np.where(values >= 256 * (1 - abs(amount)), 255 - values, values)


def autocontrasted(values: np.ndarray) -> np.ndarray:
    low, high = (limit(values, axis=(0, 2, 3), keepdims=True) for limit in (np.min, np.max))
    return (values - low) * 255 / (high - low)


def equalized(values: np.ndarray) -> np.ndarray:
    """Pillow's form on one tall image."""
    frames, _, height, width = values.shape
    tall = values.transpose(0, 2, 3, 1).reshape(frames * height, width, 3).astype(np.uint8)
    out = np.asarray(ImageOps.equalize(Image.fromarray(tall)))
    return out.reshape(frames, height, width, 3).transpose(0, 3, 1, 2)


ORACLES = {  # float64 (T, 3, H, W), amount -> the same shape
    "brightness": lambda x, a: np.clip(x * (1 + LARGEST_FACTOR * a), 0, 255),
    "contrast": lambda x, a: between(np.floor(gray(x)).mean(), x, 1 + LARGEST_FACTOR * a),
    "saturation": lambda x, a: between(gray(x), x, 1 + LARGEST_FACTOR * a),
    "sharpness": lambda x, a: between(smoothed(x), x, 1 + LARGEST_FACTOR * a),
    "posterize": lambda x, a: x - x % 2 ** round(4 * abs(a)),
    "solarize": solarized,
    "autocontrast": lambda x, a: autocontrasted(x),
    "equalize": lambda x, a: equalized(x),
}


def test_every_operation_on_colors_has_an_oracle():
    assert set(ORACLES) == set(COLOR_OPERATIONS)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", ORACLES)
def test_an_operation_is_its_formula(name: str, amount: float):
    frames = noise(5)
    expected = ORACLES[name](frames.double().numpy(), amount)
    found = OPERATIONS[name](frames, amount).double().numpy()
    exact = name in ("posterize", "solarize", "equalize")
    # The mean or gray image is rounded to a whole number first, then the result.
    assert np.abs(found - expected).max() <= (0 if exact else 1.95)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("axis", [2, 3])
def test_a_shift_moves_whole_pixels_and_fills_with_gray(axis: int, amount: float):
    frames = noise()
    shift = round(LARGEST_SHIFT * amount * 20)
    expected = torch.full_like(frames, 128)
    source, target = [slice(None)] * 4, [slice(None)] * 4
    source[axis] = slice(max(-shift, 0), 20 - max(shift, 0))
    target[axis] = slice(max(shift, 0), 20 - max(-shift, 0))
    expected[tuple(target)] = frames[tuple(source)]
    name = "translate_x" if axis == 3 else "translate_y"
    assert torch.equal(OPERATIONS[name](frames, amount), expected)


def spot(row: int, column: int) -> Tensor:
    frames = torch.zeros(1, 3, 61, 61, dtype=torch.uint8)
    frames[:, :, row - 2 : row + 3, column - 2 : column + 3] = 255
    return frames


def place(frames: Tensor) -> tuple[float, float]:
    """Row and column of the white spot."""
    white = (frames[0, 0].double() - 128).clamp(min=0)
    rows = torch.arange(61, dtype=torch.float64)
    total = white.sum()
    return float((white.sum(1) * rows).sum() / total), float((white.sum(0) * rows).sum() / total)


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("where", [(15, 30), (30, 45), (38, 20)])
def test_rotation_and_shear_move_a_spot_as_geometry_says(where: tuple[int, int], amount: float):
    y, x = where[0] - 30, where[1] - 30
    angle = np.radians(30 * amount)
    turned = place(OPERATIONS["rotate"](spot(*where), amount))
    expected = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    assert turned == pytest.approx((30 + expected[0], 30 + expected[1]), abs=1)
    slope = place(OPERATIONS["shear_x"](spot(*where), amount))
    assert slope == pytest.approx((30 + y, 30 + x - 0.3 * amount * y), abs=1)
    slope = place(OPERATIONS["shear_y"](spot(*where), amount))
    assert slope == pytest.approx((30 + y - 0.3 * amount * x, 30 + x), abs=1)
