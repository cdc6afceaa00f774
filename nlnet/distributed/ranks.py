"""The ranks of one run: their numbers, their devices, and sums over all of them."""

import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

# Imported before a group exists: its functions take the group of that moment as a default value,
# and torch imports it late (with the first optimizer). They would keep the group, and with it
# gloo's threads, until the interpreter ends; a thread that then releases a tensor aborts the
# process (pytorch issue 190489).
import torch.distributed.nn.functional
from torch import Tensor

from nlnet.distributed.launch import LAUNCHER
from nlnet.distributed.meeting import meet
from nlnet.distributed.watch import WaitLimits, Watch, named_lost_ranks
from nlnet.errors import ArgumentError, TransientError, UserError, choose

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # prctl(2)


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is rank 0, which writes files and prints."""
    return rank() == 0


def all_sum(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def from_main(tensor: Tensor) -> Tensor:
    """Replace a tensor by the one of rank 0, in place."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)
    return tensor


def gather_objects(obj: T) -> list[T]:
    """The picklable objects of all ranks, in the order of the ranks, on every rank."""
    if world_size() == 1:
        return [obj]
    gathered = [obj] * world_size()
    dist.all_gather_object(gathered, obj)
    return gathered


def on_main(work: Callable[[], T]) -> T:
    """Do work on rank 0, and return its result on every rank, which waits for it.

    Raises UserError, on every rank, if the work does.
    """
    result: T | None = None
    problem = None
    if is_main():
        try:
            result = work()
        except UserError as error:
            problem = str(error)
    result, problem = gather_objects((result, problem))[0]
    if problem is not None:
        raise UserError(problem)
    return cast(T, result)


def gather_to_main(obj: T) -> list[T]:
    """The picklable objects of all ranks, in the order of the ranks, on rank 0; else no object."""
    if world_size() == 1:
        return [obj]
    gathered: list[T] | None = [obj] * world_size() if is_main() else None
    dist.gather_object(obj, gathered, dst=0)
    return gathered or []


def pick_device(name: str) -> torch.device:
    """The device of this rank; `auto` is CUDA if there is a CUDA device, else the CPU.

    Raises ArgumentError for an unknown name, and if this rank has no CUDA device of its own.
    """
    choose("device", name, dict.fromkeys(("auto", "cpu", "cuda")))
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ArgumentError(
            f"device={name}: process {index} of this machine has no CUDA device, there are {count};"
            f" start at most {max(count, 1)} of them, or use the CPU"
        )
    return torch.device("cuda", index)


@contextmanager
def process_group(device: torch.device, watch: Watch | None = None) -> Iterator[None]:
    """Join the ranks that RANK, WORLD_SIZE and MASTER_* describe; leave them at the end.

    Without RANK in the environment the run is this process alone. CPU tensors and objects use
    gloo, CUDA tensors NCCL. Raises UserError if SLURM started several tasks without RANK, and if
    RANK is set without the other variables.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # srun sets it, salloc does not
        if int(tasks) > 1:
            raise UserError(
                f"srun started {tasks} tasks but RANK and WORLD_SIZE are not set: each task would"
                " train alone; start one task for each node, which runs torchrun or sets num_procs"
            )
        yield
        return
    missing = [name for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if not os.getenv(name)]
    if missing:
        raise UserError(
            f"RANK={os.environ['RANK']} is set in the environment, but not {', '.join(missing)};"
            " start several ranks with torchrun or with num_procs, or unset RANK"
        )
    _end_with_launcher()
    watch = watch or Watch()
    _join(device, watch.limits)
    watch.start()
    try:
        with named_lost_ranks(watch):
            yield
    except BaseException as error:
        _release_locals(error)
        raise
    finally:
        dist.destroy_process_group()
        gc.collect()  # gloo's threads end with the last reference to the group
        watch.close()


def _join(device: torch.device, limits: WaitLimits) -> None:
    """Join the group of this attempt; raises TransientError if ranks are missing."""
    # The watch ends a rank earlier than the time limit of the backend.
    timeout = timedelta(seconds=60 + limits.first + limits.step)
    own, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        store = meet(own, size, timedelta(seconds=limits.first))
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=own, world_size=size, timeout=timeout)
    except (dist.DistError, TimeoutError) as error:
        cause = str(error).splitlines()[0]
        raise TransientError(
            f"rank {own} of {size} finds no group at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} ({cause}); start all machines, and let them reach it"
        ) from error


def _release_locals(error: BaseException | None) -> None:
    """Clear the variables of the functions that an error left: DDP's network keeps the group."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _end_with_launcher() -> None:
    """Ask the kernel to end this rank when the process that launched it ends."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # the launcher ended before the line above
        sys.exit(1)
