"""The time of a training step, what it is spent on, and the speed limit of the device."""

import resource
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function

from nlnet.clip import ClipBatch
from nlnet.files import write_atomic
from nlnet.trainer.ahead import copied_ahead
from nlnet.trainer.bad_steps import refuse_step
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.prepare import set_training_mode
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import train_step

WARMUP = 2  # steps that are neither timed nor recorded
LOADING, STEP = "load a batch", "ProfilerStep"  # ranges of the trace; TensorBoard knows the second
RANGES = (LOADING, STEP, "enumerate(DataLoader)")  # are no operations


class _StepTime(NamedTuple):
    """The time of one step on this rank."""

    seconds: float  # with loading
    waited: float  # seconds spent waiting for data
    clips: int


class _Operation(NamedTuple):
    """What the recorded steps spent their time on."""

    name: str
    seconds: float  # without the operations that it calls
    share: float  # of all operations


class Profile(NamedTuple):
    """The times of the steps of one rank."""

    steps: list[_StepTime]  # not recorded: the profiler makes steps slower
    operations: list[_Operation]  # of the recorded steps, the longest first
    memory: int  # the most bytes so far: allocated on the GPU, or resident in this process

    @property
    def seconds(self) -> float:
        """The median time of a step."""
        return statistics.median(step.seconds for step in self.steps)

    @property
    def waited(self) -> float:
        """The share of the time spent waiting for data."""
        return sum(step.waited for step in self.steps) / sum(step.seconds for step in self.steps)

    @property
    def clips(self) -> int:
        """Clips of a step on this rank."""
        return self.steps[0].clips


def profile(
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    batches: Iterator[ClipBatch],
    *,
    steps: int,
    trace: Path,
) -> Profile:
    """Time training steps, then record as many again with torch's profiler.

    Args:
        state: is changed
        network: `state.model`, possibly compiled or wrapped for several ranks
        settings: how to train; the learning rate is that of the first step
        batches: of this rank, at least one more than the steps use
        steps: the number of steps that are timed, and of those that are recorded
        trace: the file to write, in the format of Chrome's traces, compressed by gzip

    Raises:
        UserError: the loss is not finite, or the file cannot be written.
        Preempted: the run was asked to stop.
        OutOfTime: the time limit is reached.
    """
    set_training_mode(network, state.model, settings.freeze)
    device = settings.device
    batches = copied_ahead(batches, device)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with StopRequest(settings.max_minutes) as stop:
        for _ in range(WARMUP):
            _step(state, network, settings, batches, stop)
        times = [_step(state, network, settings, batches, stop) for _ in range(steps)]
        memory = _peak_memory(device)
        with torch.profiler.profile(activities=activities) as recorded:
            for i in range(steps):
                with record_function(f"{STEP}#{i}"):
                    _step(state, network, settings, batches, stop)
    with TemporaryDirectory() as folder:
        path = Path(folder) / trace.name
        recorded.export_chrome_trace(str(path))
        trace.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(trace, path.read_bytes())
    return Profile(times, _operations(recorded, device), memory)


def _step(
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    batches: Iterator[ClipBatch],
    stop: StopRequest,
) -> _StepTime:
    start = _now(settings.device)
    with record_function(LOADING):
        micro_batches = list(islice(batches, settings.accumulate))
    waited = time.perf_counter() - start
    lr = settings.lr * settings.schedule(0)
    sums, norm = train_step(state, network, settings, micro_batches, lr=lr, stop=stop)
    if sums.faults:
        refuse_step(state.progress, sums, norm, settings.remedies.not_finite)
    state.progress.step += 1
    state.progress.global_step += 1
    if sums.stop:
        raise stop.agree()[1]
    clips = sum(len(batch.label) for batch in micro_batches)
    return _StepTime(_now(settings.device) - start, waited, clips)


def _operations(recorded: torch.profiler.profile, device: torch.device) -> list[_Operation]:
    """Sum the time of each operation: on the GPU if there is one, else on the processor."""
    seconds: dict[str, float] = {}
    for event in recorded.key_averages():
        if not event.key.startswith(RANGES):
            on_cpu, on_gpu = event.self_cpu_time_total, event.self_device_time_total
            seconds[event.key] = 1e-6 * (on_gpu if device.type == "cuda" else on_cpu)
    total = sum(seconds.values()) or 1.0
    rows = [_Operation(name, value, value / total) for name, value in seconds.items()]
    return sorted(rows, key=lambda row: -row.seconds)


def matmul_ceiling(
    device: torch.device, precision: torch.dtype | None, *, size: int | None = None
) -> float:
    """Return the operations a second of a square matrix product, the best of 12.

    `size` is 2048 on a CPU and 8192 on a GPU unless it is given. `precision` is the dtype of
    autocast; None is float32.
    """
    dtype = precision or torch.float32
    size = size or (2048 if device.type == "cpu" else 8192)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(12):
        start = _now(device)
        a @ b
        times.append(_now(device) - start)
    return 2 * size**3 / min(times)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _now(device: torch.device) -> float:
    """Return the time in seconds after all work that was queued on the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
