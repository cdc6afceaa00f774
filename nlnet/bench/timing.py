"""Times of calls, measured in turn."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def now() -> float:
    """Return the time in seconds after all work that was queued on the GPU has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 1
) -> dict[str, float]:
    """Return the median seconds of each call.

    The calls are made in turn, so that other work on the machine slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(warmup + repeats):
        for name, call in calls.items():
            start = now()
            call()
            if i >= warmup:
                times[name].append(now() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}
