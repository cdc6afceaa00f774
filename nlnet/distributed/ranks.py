"""The ranks of one run: who is who, sums over all of them, and how their processes live and die."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nlnet.errors import UsageError, UserError

T = TypeVar("T")

LAUNCHER = "NLNET_LAUNCHER"  # the environment variable that holds the process id of `launch`
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STOPPED = {128 + signum for signum in FORWARDED}  # exit codes of ranks that agreed to stop
GRACE = 5.0  # seconds between SIGTERM and SIGKILL for ranks that outlive a dead one
PR_SET_PDEATHSIG = 1  # prctl(2)


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes make this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and talks."""
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


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def gather_objects(obj: T) -> list[T]:
    """The picklable objects of all ranks, in the order of the ranks, on every rank."""
    if world_size() == 1:
        return [obj]
    gathered = [obj] * world_size()
    dist.all_gather_object(gathered, obj)
    return gathered


def pick_device(name: str) -> torch.device:
    """The device of this rank: `auto` is CUDA where there is one; raises UsageError."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"dist.device: {name!r} is not one of auto, cpu, cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise UsageError(
            f"dist.device: process {index} of this machine has no CUDA device, there are {count};"
            f" set dist.num_procs to {max(count, 1)} or less, or dist.device=cpu"
        )
    return torch.device("cuda", index)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the ranks that the environment speaks of (RANK, WORLD_SIZE, MASTER_*), and leave again.

    Small tensors and objects travel over gloo, those on a GPU over NCCL. Without RANK the run is
    this process alone. Raises UserError where SLURM started several tasks that do not know of one
    another.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        tasks = os.environ.get("SLURM_NTASKS", "1")
        if int(tasks) > 1:
            raise UserError(
                f"SLURM_NTASKS is {tasks} but RANK and WORLD_SIZE are not set: each task would"
                " train alone; start one task per node that runs torchrun or sets dist.num_procs"
            )
        yield
        return
    _die_with_launcher()
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield
    finally:
        dist.destroy_process_group()


def _die_with_launcher() -> None:
    """Let the kernel end this rank when the process that launched it is gone."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # it died before the line above
        sys.exit(1)


def launch(command: list[str], num_procs: int) -> int:
    """Run a command as the ranks of one run on this machine and wait for them all.

    Every rank is a fresh process that finds RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE,
    MASTER_ADDR and MASTER_PORT in its environment. SIGINT, SIGTERM and SIGUSR1 are passed on. When
    a rank fails, the others get SIGTERM and, `GRACE` seconds later, SIGKILL.

    Returns:
        0, or the exit code of the rank that failed first (128 + n for one that signal n ended).

    Raises:
        UsageError: num_procs is below 1.
    """
    if num_procs < 1:
        raise UsageError(f"dist.num_procs={num_procs} is not positive; use 1 or more")
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        for process in ranks:
            process.send_signal(signum)

    handlers = {signum: signal.signal(signum, forward) for signum in FORWARDED}
    try:
        for environment in _environments(num_procs):
            # A session of its own: Ctrl-C in the terminal reaches a rank once, through `forward`.
            ranks.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return _wait(ranks)
    finally:
        for process in ranks:
            _kill(process)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _environments(num_procs: int) -> list[dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(len(os.sched_getaffinity(0)) // num_procs, 1)
    defaults = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads would starve the decoding processes
        "GLOO_SOCKET_IFNAME": "lo",
    }
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), LAUNCHER: str(os.getpid())}
    size = {"WORLD_SIZE": str(num_procs), "LOCAL_WORLD_SIZE": str(num_procs)}
    return [
        defaults | os.environ | group | size | {"RANK": str(i), "LOCAL_RANK": str(i)}
        for i in range(num_procs)
    ]


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    first_bad, deadline = 0, float("inf")
    while None in (codes := [process.poll() for process in ranks]):
        if not first_bad and any(codes):
            first_bad, deadline = _cause(codes), time.monotonic() + GRACE
            if first_bad not in STOPPED:  # else the others are about to end, too
                for process in ranks:
                    process.terminate()
        if time.monotonic() > deadline:
            for process in ranks:
                _kill(process)
        time.sleep(0.05)
    first_bad = first_bad or _cause(codes)
    return first_bad if first_bad >= 0 else 128 - first_bad


def _cause(codes: list[int | None]) -> int:
    """The failure to report of those seen at once: an end by a signal made the others fail."""
    return min((code for code in codes if code), default=0)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a rank and the worker processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
