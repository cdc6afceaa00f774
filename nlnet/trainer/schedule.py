"""Learning rate schedules: pure functions of the optimiser step, so a resume needs no replay."""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]  # optimiser step, from 0 -> multiplier of the learning rate


def step_schedule(total_steps: int, milestones: Sequence[float], gamma: float) -> Schedule:
    """Multiply by gamma from each milestone on; milestones are shares of the whole run."""

    def multiplier(step: float) -> float:
        return float(gamma ** sum(step / total_steps >= milestone for milestone in milestones))

    return multiplier


def cosine_schedule(total_steps: int, floor: float) -> Schedule:
    """Half a cosine from 1 at the first step to floor at total_steps."""

    def multiplier(step: float) -> float:
        progress = min(step / total_steps, 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return multiplier


def with_warmup(schedule: Schedule, warmup_steps: float, start: float) -> Schedule:
    """Rise linearly from start to the schedule's own value at the end of the warm-up.

    The curve has no jump: a step schedule is reached at 1, a cosine where it then stands.
    """

    def multiplier(step: float) -> float:
        if step >= warmup_steps:
            return schedule(step)
        target = schedule(warmup_steps)
        return start + (target - start) * step / warmup_steps

    return multiplier
