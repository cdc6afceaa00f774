"""Learning rate schedules: pure functions of the optimizer step, so a resume replays nothing."""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]  # optimizer step, from 0 -> multiplier of the learning rate


def step_schedule(total_steps: int, milestones: Sequence[float], gamma: float) -> Schedule:
    """Multiply the rate by gamma at each milestone. Milestones are shares of the run, in (0, 1)."""

    def multiplier(step: float) -> float:
        return float(gamma ** sum(step / total_steps >= milestone for milestone in milestones))

    return multiplier


def cosine_schedule(total_steps: int, floor: float) -> Schedule:
    """Decay the multiplier along half a cosine, from 1 at step 0 to floor at total_steps."""

    def multiplier(step: float) -> float:
        progress = min(step / total_steps, 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return multiplier


def with_warmup(schedule: Schedule, warmup_steps: float, start: float) -> Schedule:
    """Raise the multiplier linearly from start to the schedule's value at the end of the warm-up.

    The curve is continuous: the warm-up ends at the value that the schedule has at that step.
    """

    def multiplier(step: float) -> float:
        if step >= warmup_steps:
            return schedule(step)
        target = schedule(warmup_steps)
        return start + (target - start) * step / warmup_steps

    return multiplier
