"""How many clips of a step fit in memory: an estimate on a CPU, a trial on a GPU."""

import gc
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nlnet.clip import ClipBatch
from nlnet.config import ResNetConfig, RunConfig
from nlnet.distributed.ranks import world_size
from nlnet.errors import UsageError
from nlnet.jobs.strategy import is_sharded
from nlnet.model.build import build_model, describe_model
from nlnet.model.classifier import VideoClassifier
from nlnet.trainer.build import build_optimizer, build_scaler, build_settings
from nlnet.trainer.step import accumulate_gradients

NUM_CLASSES = 400  # of the network that is counted or tried
# Peak of resident memory over what autograd keeps without `lean`, which shortens that but not the
# peak of an operation: measured 1.15, 1.35 and 1.54 on three networks (tests/jobs/test_memory.py).
PEAK = 1.35
COPIES = 4  # of the parameters: their gradient, and up to two numbers of the optimizer
SMALLER = "use a smaller data.batch_size or a larger trainer.accumulate"
PIXEL = 6000  # bytes that no usual network needs for a pixel of a clip; below, nothing is counted
GROUP = "/sys/fs/cgroup/memory"
LIMITS = (  # files of control groups, version 2 and 1: the limit, and what is used of it
    (f"{GROUP}.max", f"{GROUP}.current"),
    (f"{GROUP}/memory.limit_in_bytes", f"{GROUP}/memory.usage_in_bytes"),
)


def step_bytes(run: RunConfig, clips: int) -> int:
    """Estimate the memory of a training step of this process on a CPU, within about 20 %."""
    clip = run.data.clip
    stages = describe_model(
        run.model, NUM_CLASSES, num_frames=clip.num_frames, crop_size=clip.crop_size
    )
    kept = sum(
        stage.activation_bytes
        for stage in stages
        if stage.name not in run.trainer.checkpoint_stages
    )
    parameters = 4 * sum(stage.parameters for stage in stages)
    if run.dist.strategy == "fsdp":  # each rank has its part
        parameters //= int(os.environ.get("WORLD_SIZE", "1"))
    return int(COPIES * parameters + clips * PEAK * kept)


def describe_cpu_memory(run: RunConfig, available: int | None = None) -> Iterator[str]:
    """A log line if the steps of the ranks on this machine may not fit in its memory."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    clips = _micro_batch(run)
    free = (free_memory() if available is None else available) // ranks
    clip = run.data.clip
    if clips * clip.num_frames * clip.crop_size**2 * PIXEL < free:
        return
    needed = step_bytes(run, clips)
    if needed <= free:
        return
    fitting = largest_fitting(clips, lambda size: step_bytes(run, size) <= free)
    yield (
        f"a step of {clips} clips needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
        f"free for each rank: {_advice(run, clips, fitting)}"
    )


@contextmanager
def named_out_of_memory(
    run: RunConfig, device: torch.device, prepare: Callable[[VideoClassifier], None]
) -> Iterator[None]:
    """If the memory of the GPU runs out, raise UsageError with a size of a step that was tried.

    `prepare` freezes parts of a network and replaces modules, as for training.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # they keep tensors
        clips = _micro_batch(run)
        message = f"the memory of the GPU is too small for {clips} clips in a forward pass"
    else:
        return
    gc.collect()
    torch.cuda.empty_cache()
    match run.model:
        case ResNetConfig(norm="sync") if world_size() > 1:  # a trial would wait for other ranks
            advice = SMALLER
        case _ if is_sharded(run):  # a trial would have the whole network
            advice = SMALLER
        case _:
            advice = _tried(run, clips, lambda size: _fits(run, device, prepare, size))
    raise UsageError(f"{message}; {advice}")


def _tried(run: RunConfig, clips: int, fits: Callable[[int], bool]) -> str:
    if fits(clips):
        return (
            "but they fit in a trial: use a smaller data.val_views.batch_size if the validation "
            "ran, and look for other programs on the GPU"
        )
    return f"tried on this GPU: {_advice(run, clips, largest_fitting(clips, fits))}"


def largest_fitting(clips: int, fits: Callable[[int], bool]) -> int | None:
    """The smallest number of equal parts of `clips` so that a part fits; None if none does."""
    return next((parts for parts in _divisors(clips) if fits(clips // parts)), None)


def free_memory() -> int:
    """Bytes that this process can still use, as the system and its control group say."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    for limit, used in LIMITS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or no limit
            continue
    return max(free, 0)


def _micro_batch(run: RunConfig) -> int:
    """Clips of this rank in one forward pass."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    return max(run.data.batch_size // (ranks * run.trainer.accumulate), 1)


def _divisors(clips: int) -> Iterator[int]:
    yield from (parts for parts in range(2, clips + 1) if clips % parts == 0)


def _advice(run: RunConfig, clips: int, parts: int | None) -> str:
    if parts is None:
        return (
            "not even one clip fits; use smaller data.clip.crop_size or num_frames, "
            "trainer.checkpoint_stages, or another network"
        )
    return (
        f"{clips // parts} fit: with another name=NAME, "
        f"trainer.accumulate={run.trainer.accumulate * parts} keeps the batch of "
        f"{run.data.batch_size}, or data.batch_size={run.data.batch_size // parts}"
    )


def _fits(
    run: RunConfig,
    device: torch.device,
    prepare: Callable[[VideoClassifier], None],
    clips: int,
) -> bool:
    """Whether a forward and backward pass and an update of random clips fit."""
    try:
        _trial(run, device, prepare, clips)
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    return True


def _trial(
    run: RunConfig,
    device: torch.device,
    prepare: Callable[[VideoClassifier], None],
    clips: int,
) -> None:
    model = build_model(run.model, NUM_CLASSES)
    prepare(model)
    model.to(device)
    if run.trainer.channels_last:
        model.to(memory_format=torch.channels_last_3d)
    optimizer, scaler = build_optimizer(run.optim, model), build_scaler(run.trainer, device)
    settings = build_settings(run, 1, device)
    size = run.data.clip.crop_size
    video = torch.zeros(clips, 3, run.data.clip.num_frames, size, size, dtype=torch.uint8)
    label = torch.zeros(clips, dtype=torch.int64)
    if not settings.one_label:
        label = torch.zeros(clips, NUM_CLASSES)
    model.train()
    for _ in range(2):  # the second one has the state of the optimizer from its start
        optimizer.zero_grad(set_to_none=True)
        accumulate_gradients(model, [ClipBatch(video, label, label, ())], settings, scaler)
        optimizer.step()
