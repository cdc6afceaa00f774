"""RandAugment and random erasing as changes of a view."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nlnet.data.augmentation.changes import RandAugment, RandomErasing
from nlnet.data.augmentation.operations import OPERATION_SETS, OPERATIONS
from nlnet.data.transforms import JitterCrop, TrainTransform

CHANGES = {
    **{
        f"rand_augment_{name}": RandAugment(operations, 3, 0.5)
        for name, operations in OPERATION_SETS.items()
    },
    "erasing": RandomErasing(1.0),
}


def view(num_frames: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_frames, 3, 24, 24), dtype=torch.uint8, generator=generator)


def changed(change, frames: Tensor, seed: int) -> Tensor:
    return change(frames, np.random.default_rng(seed))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_a_function_of_the_generator(name: str):
    frames = view()
    outputs = []
    for seed in range(12):
        torch.manual_seed(seed)
        outputs.append(changed(CHANGES[name], frames, seed))
        torch.manual_seed(99)
        assert torch.equal(outputs[-1], changed(CHANGES[name], frames, seed))
        assert (outputs[-1].shape, outputs[-1].dtype) == (frames.shape, torch.uint8)
    assert torch.equal(frames, view())  # the input is not changed
    assert len({out.numpy().tobytes() for out in outputs}) > 8


@pytest.mark.parametrize("name", CHANGES)
def test_all_frames_get_the_same_change(name: str):
    still = view(1).expand(5, -1, -1, -1)
    for seed in range(12):
        out = changed(CHANGES[name], still, seed)
        assert torch.equal(out, out[:1].expand_as(out))


@pytest.mark.parametrize(
    "change", [RandAugment(OPERATIONS, 3, 0.0), RandAugment(OPERATIONS, 0, 0.5), RandomErasing(0.0)]
)
def test_without_strength_nothing_changes(change):
    for seed in range(12):
        assert torch.equal(changed(change, view(), seed), view())


def test_rand_augment_applies_its_operations_with_both_signs_in_order():
    seen: list[tuple[str, float]] = []

    def operation(name: str):
        return lambda frames, amount: seen.append((name, amount)) or frames

    names = ("a", "b", "c")
    change = RandAugment({name: operation(name) for name in names}, 2, 0.25)
    for seed in range(300):
        changed(change, view(), seed)
    assert len(seen) == 600
    for name in names:
        for amount in (-0.25, 0.25):
            assert 70 < seen.count((name, amount)) < 130


def test_erasing_fills_one_rectangle_and_keeps_the_rest():
    dark = torch.zeros(3, 3, 48, 48, dtype=torch.uint8)
    shares = []
    for seed in range(200):
        out = changed(RandomErasing(1.0), dark, seed)
        rows, columns = (out.amax((0, 1)) > 0).nonzero(as_tuple=True)
        box = out[:, :, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        shares.append(box[0, 0].numel() / 48**2)
        assert (box.amax(1) > 0).float().mean() > 0.95  # noise in the whole rectangle
        assert torch.equal(out.sum(dtype=torch.int64), box.sum(dtype=torch.int64))
    assert 0.015 < min(shares) < 0.1 and 0.25 < max(shares) < 0.35


@pytest.mark.parametrize("probability", [0.25, 0.75])
def test_erasing_has_its_probability(probability: float):
    hits = sum(
        not torch.equal(changed(RandomErasing(probability), view(), seed), view())
        for seed in range(400)
    )
    assert abs(hits / 400 - probability) < 0.08


def test_changes_follow_the_crop_and_do_not_alter_its_randomness():
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    crop = JitterCrop(24, 30, 40)
    plain = TrainTransform(crop, 24, flip=True, color_jitter=0.3)
    both = TrainTransform(crop, 24, True, 0.3, (RandomErasing(1.0), CHANGES["rand_augment_all"]))
    rng = np.random.default_rng(7)
    (expected,) = plain(frames, rng)
    expected = expected.transpose(0, 1)
    for change in both.changes:
        expected = change(expected, rng)
    (found,) = both(frames, np.random.default_rng(7))
    assert torch.equal(found, expected.transpose(0, 1))
