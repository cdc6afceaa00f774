"""Build the loader that decodes videos in worker processes."""

import multiprocessing
import os

import torch
from torch.utils.data import DataLoader, Dataset

from nlnet.checks import at_least
from nlnet.clip import Sample
from nlnet.data.dataset import collate
from nlnet.data.order import EpochOrder, EvaluationOrder
from nlnet.distributed.signals import leave_signals_to_run
from nlnet.errors import UsageError

MAX_WORKERS = 8  # and of more files, worker processes decode


def build_batches(
    dataset: Dataset[Sample],
    order: EpochOrder | EvaluationOrder,
    batch_size: int,
    *,
    num_workers: int | None,
    pin_memory: bool = False,
) -> DataLoader[Sample]:
    """The batches of a data set in an order.

    `num_workers` processes decode; None chooses their number. Raises UsageError if it is negative.
    """
    if num_workers is None:
        num_workers = _default_workers()
    if num_workers < 0:
        raise UsageError(f"data.num_workers={num_workers} must be 0 or more, or null")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        num_workers=num_workers,
        collate_fn=collate,
        worker_init_fn=leave_signals_to_run,
        multiprocessing_context=_start_method() if num_workers > 0 else None,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        # Without a generator, each iteration would change the state of the global one.
        generator=torch.Generator(),
    )


def micro_batch_size(batch_size: int, world_size: int, accumulate: int, repeats: int) -> int:
    """Clips of one rank in one forward pass, a multiple of `repeats`."""
    at_least("data.repeats", repeats, 1)
    parts = world_size * accumulate * repeats
    if batch_size < 1 or batch_size % parts:
        below = batch_size // parts * parts
        sizes = f"{below} or {below + parts}" if below > 0 else f"{parts}"
        clips = f" x {repeats} clips of a video (data.repeats)" if repeats > 1 else ""
        raise UsageError(
            f"data.batch_size={batch_size} is not a positive multiple of {world_size} ranks x "
            f"{accumulate} accumulation steps{clips}; use {sizes}"
        )
    return batch_size // (world_size * accumulate)


def _start_method() -> str | None:
    """How worker processes start: the default of Python, also in a process of joblib.

    In its processes joblib makes its own method the default, which cannot start data workers.
    """
    own = multiprocessing.get_start_method() not in ("fork", "spawn", "forkserver")
    return multiprocessing.get_all_start_methods()[0] if own else None  # the default is the first


def _default_workers() -> int:
    """One decoding process for each CPU of this rank, but none if it has only one CPU."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cpus = len(os.sched_getaffinity(0)) // ranks_here
    return min(cpus, MAX_WORKERS) if cpus > 1 else 0
