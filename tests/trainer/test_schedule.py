import math

import pytest

from nlnet.trainer.schedule import cosine_schedule, step_schedule, with_warmup


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (149_999, 1.0), (150_000, 0.1), (299_999, 0.1), (300_000, 0.01)],
)
def test_the_schedule_of_the_paper(step: int, expected: float):
    """400k steps, and the rate is divided by 10 every 150k."""
    multiplier = step_schedule(400_000, [0.375, 0.75], 0.1)
    assert multiplier(step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("total", [10, 60, 100, 1000])
def test_the_rate_changes_exactly_at_a_milestone(total: int):
    for percent in range(10, 100, 10):
        multiplier = step_schedule(total, [percent / 100], 0.5)
        step = total * percent // 100
        assert (multiplier(step - 1), multiplier(step)) == (1.0, 0.5)


def test_the_cosine_at_known_points():
    multiplier = cosine_schedule(120, 0.0)
    points = {0: 1.0, 20: 0.5 + math.sqrt(3) / 4, 40: 0.75, 60: 0.5, 80: 0.25, 120: 0.0}
    for step, expected in points.items():
        assert multiplier(step) == pytest.approx(expected, abs=1e-12)


def test_the_cosine_ends_at_its_floor():
    multiplier = cosine_schedule(10, 0.2)
    assert multiplier(0) == 1.0
    assert multiplier(5) == pytest.approx(0.6)
    assert multiplier(10) == pytest.approx(0.2)


def test_the_warmup_is_linear_and_continuous():
    multiplier = with_warmup(cosine_schedule(1000, 0.0), 100.0, 0.1)
    top = 0.5 * (1 + math.cos(math.pi * 0.1))
    for step, share in [(0, 0.0), (25, 0.25), (50, 0.5), (99, 0.99), (100, 1.0)]:
        assert multiplier(step) == pytest.approx(0.1 + (top - 0.1) * share, rel=1e-12)
    assert multiplier(101) < multiplier(100)


def test_the_warmup_can_be_a_fraction_of_an_epoch():
    multiplier = with_warmup(step_schedule(100, [0.5], 0.1), 0.25 * 10, 0.0)
    assert [multiplier(step) for step in range(4)] == pytest.approx([0.0, 0.4, 0.8, 1.0])


def test_a_warmup_of_zero_steps_changes_nothing():
    plain = cosine_schedule(30, 0.0)
    assert [with_warmup(plain, 0.0, 0.1)(step) for step in range(30)] == [*map(plain, range(30))]
