"""Time and memory of a step that is repeated, or the reason why there are none."""

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nlnet.bench.gpu.plan import GpuPlan
from nlnet.bench.memory import peak_megabytes, restart_peak
from nlnet.bench.timing import now
from nlnet.errors import UserError

Step = Callable[[], object]


@dataclass(frozen=True)
class Measurement:
    """What was measured of one contender. Without figures, `reason` says why."""

    seconds: float | None = None  # of a step
    peak_mb: float | None = None
    reason: str = ""


def measure_step(build: Callable[[], Step], plan: GpuPlan, device: torch.device) -> Measurement:
    """Build a step and time windows of it. The host waits for the device once in a window.

    A contender that is refused, does not fit into the memory or fails on the device has no
    figures, and the benchmark goes on.
    """
    restart_peak(device)
    start = peak_megabytes(device)
    try:
        step = build()
        for _ in range(plan.warmup):
            step()
        restart_peak(device)
        seconds = statistics.median(_window(step, plan.steps) for _ in range(plan.windows))
        return Measurement(seconds, max(peak_megabytes(device) - start, 0.0))
    except torch.OutOfMemoryError:
        return Measurement(reason="out of memory")
    except (UserError, RuntimeError) as error:
        return Measurement(reason=f"refused: {str(error).strip().splitlines()[0]}")
    finally:
        if plan.compiles:
            torch.compiler.reset()
        if device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def _window(step: Step, steps: int) -> float:
    """Seconds of a step, the mean of several."""
    start = now()
    for _ in range(steps):
        step()
    return (now() - start) / steps
