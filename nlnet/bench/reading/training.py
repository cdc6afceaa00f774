"""End to end: the rate of training from files as a share of the rate from batches in memory."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import NamedTuple

import torch

from nlnet.bench.reading.rounds import Spread, spread_of
from nlnet.checkpoint import current_provenance
from nlnet.cli.compose import compose_run
from nlnet.clip import ClipBatch
from nlnet.config import RunConfig
from nlnet.data.build import build_train_loader
from nlnet.distributed.build import build_device
from nlnet.model.build import build_model
from nlnet.model.speed.checkpointing import save_memory
from nlnet.numerics.denormals import flushed_denormals
from nlnet.runs.machine import usable_cores
from nlnet.trainer.build import apply_allocator, build_optimizer, build_scaler, build_settings
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.prepare import prepare_model, set_training_mode, wrap_for_training
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import train_step

# Name -> an experiment and words that change it.
NETWORKS = {"i3d_tiny": ("i3d", "model=i3d_tiny"), "i3d_nl5": ("i3d_nl5",)}
LIST = "train.txt"
ROWS = 4096  # of the list, so that an epoch does not end in the measurement
WARMUP = 2  # steps
AHEAD = 2  # batches that each worker of a loader reads ahead


class Steps(NamedTuple):
    """How many clips and steps are measured."""

    num_frames: int
    crop_size: int
    batch: int
    steps: int  # of one round
    rounds: int


class EndToEnd(NamedTuple):
    """Clips per second from batches in memory and from files, and the share."""

    network: str
    device: str
    batch: int
    workers: int
    memory: float
    files: float
    share: Spread


def write_list(folder: Path, paths: Sequence[Path]) -> None:
    """Write a list of videos below the folder, each many times, with the label of its class."""
    lines = [f"{path.relative_to(folder)} {int(path.parent.name[-1])}" for path in paths]
    (folder / LIST).write_text("\n".join(lines * -(-ROWS // len(lines))) + "\n")


def measure_training(network: str, root: Path, steps: Steps) -> EndToEnd:
    """Train a network of NETWORKS in a process of its own, from the list in `root`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        threads = torch.get_num_threads()
        return pool.submit(_measure, network, root, steps, threads).result()


@flushed_denormals()
def _measure(network: str, root: Path, steps: Steps, threads: int) -> EndToEnd:
    torch.set_num_threads(threads)
    run = _compose(network, root, steps)
    apply_allocator(run.trainer)
    device = build_device(run.dist)
    loader = build_train_loader(
        run.data,
        seed=0,
        accumulate=1,
        rank=0,
        world_size=1,
        pin_memory=device.type == "cuda",
    )
    step = _build_step(run, loader.steps_per_epoch, device)
    from_files = (batch for epoch in count() for batch in loader.at(epoch))
    in_memory = repeat(next(from_files))
    workers = usable_cores()
    rates: list[tuple[float, float]] = []
    for _ in range(steps.rounds):
        _rate(step, in_memory, WARMUP)  # meanwhile the workers fill their queues, and stop
        memory = _rate(step, in_memory, steps.steps)
        _rate(step, from_files, AHEAD * workers)  # what was read in the meantime does not count
        rates.append((memory, _rate(step, from_files, steps.steps)))
    scale = steps.batch
    return EndToEnd(
        network,
        device.type,
        steps.batch,
        workers,
        memory=scale * spread_of([rate[0] for rate in rates]).middle,
        files=scale * spread_of([rate[1] for rate in rates]).middle,
        share=spread_of([files / memory for memory, files in rates]),
    )


def _compose(network: str, root: Path, steps: Steps) -> RunConfig:
    run = compose_run(*NETWORKS[network])
    clip = replace(run.data.clip, num_frames=steps.num_frames, crop_size=steps.crop_size)
    data = replace(run.data, root=str(root), train=LIST, batch_size=steps.batch, clip=clip)
    return replace(run, data=replace(data, classes=None, num_workers=usable_cores()))


def _build_step(
    run: RunConfig, steps_per_epoch: int, device: torch.device
) -> Callable[[ClipBatch], object]:
    """A function that makes one training step, as nlnet/jobs/train.py does."""
    torch.manual_seed(0)
    model = build_model(run.model, 2)
    memory = partial(
        save_memory, lean=run.trainer.lean, checkpoint_stages=run.trainer.checkpoint_stages
    )
    prepare_model(model, freeze=run.trainer.freeze, save_memory=memory)
    model.to(device)
    state = TrainState(
        model,
        build_optimizer(run.optim, model),
        current_provenance("", ["0", "1"]),
        build_scaler(run.trainer, device),
    )
    trainer = run.trainer
    network = wrap_for_training(
        model, device=device, channels_last=trainer.channels_last, compiled=trainer.compile
    )
    settings = build_settings(run, steps_per_epoch, device)
    set_training_mode(network, model, settings.freeze)
    lr = settings.lr * settings.schedule(0)
    stop = StopRequest()
    return lambda batch: train_step(state, network, settings, [batch], lr=lr, stop=stop)


def _rate(step: Callable[[ClipBatch], object], batches: Iterator[ClipBatch], steps: int) -> float:
    """Steps per second. A step ends when its loss is known, so that nothing stays queued."""
    start = time.perf_counter()
    for _ in range(steps):
        step(next(batches))
    return steps / (time.perf_counter() - start)
