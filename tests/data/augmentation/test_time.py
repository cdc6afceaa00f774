"""Speed and direction of training clips."""

import numpy as np
import pytest

from nlnet.data.augmentation.time import TimeChange
from nlnet.data.clip_sampling import INDEX_RULES, SAMPLERS, ClipShape, RandomClip

SHAPE = ClipShape(8, 4)
LENGTH = 200


def sampler(name: str) -> RandomClip:
    rule = SAMPLERS[name].short or "loop"
    return RandomClip(SAMPLERS[name], SHAPE, INDEX_RULES[rule])


def numbers(change, seed: int, length: int = LENGTH) -> np.ndarray:
    (clip,) = change(length, np.random.default_rng(seed))
    return clip


@pytest.mark.parametrize("name", SAMPLERS)
def test_without_strength_the_clip_and_the_generator_stay(name: str):
    change = TimeChange(sampler(name), 0.0, 0.0)
    for seed in range(20):
        plain, changed = np.random.default_rng(seed), np.random.default_rng(seed)
        assert np.array_equal(sampler(name)(LENGTH, plain)[0], change(LENGTH, changed)[0])
        assert plain.random() == changed.random()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("length", [5, 31, LENGTH])
def test_a_change_is_a_function_of_the_generator_and_stays_in_the_video(name: str, length: int):
    change = TimeChange(sampler(name), 0.5, 0.5)
    for seed in range(30):
        clip = numbers(change, seed, length)
        assert np.array_equal(clip, numbers(change, seed, length))
        assert len(clip) == 8 and clip.min() >= 0 and clip.max() < length


@pytest.mark.parametrize("name", SAMPLERS)
def test_reversal_turns_the_order_of_half_of_the_clips(name: str):
    reversed_clips = 0
    for seed in range(400):
        plain = numbers(sampler(name), seed)
        found = numbers(TimeChange(sampler(name), 0.0, 0.5), seed)
        is_reversed = np.array_equal(found, plain[::-1])
        assert is_reversed or np.array_equal(found, plain)
        reversed_clips += is_reversed
    assert 160 < reversed_clips < 240


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "segments"])
def test_the_speed_is_uniform_between_its_limits(name: str):
    change = TimeChange(sampler(name), 0.5, 0.0)
    spans = np.array([np.ptp(numbers(change, seed)) for seed in range(400)]) / 28
    plain = np.ptp(numbers(sampler(name), 0)) / 28
    assert 0.45 * plain < spans.min() < 0.6 * plain
    assert 1.4 * plain < spans.max() < 1.55 * plain
    assert spans.mean() == pytest.approx(plain, rel=0.06)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("factor", [0.3, 0.5, 1.25, 1.7])
def test_frames_that_are_no_whole_number_apart_are_rounded(name: str, factor: float):
    clip = sampler(name).times(factor)
    assert clip.shape == (8, 4 * factor)
    for seed in range(20):
        found = numbers(clip, seed)
        assert (np.diff(found) >= 0).all()
        if name == "dense":
            places = [found[0] + round(4 * factor * i) for i in range(8)]
            assert found.tolist() == places


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_factor_of_1_gives_the_same_clips(name: str):
    for seed in range(20):
        assert np.array_equal(numbers(sampler(name).times(1.0), seed), numbers(sampler(name), seed))
