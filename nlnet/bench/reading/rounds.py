"""Rounds in which the loaders of several readers read the same clips in turn."""

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader

Name = TypeVar("Name")


class Measured(NamedTuple):
    """What one reader needed for a sample, in each round."""

    cpu: list[float]  # seconds of processor time of the workers
    wall: list[float]  # seconds


class Spread(NamedTuple):
    """The median of the rounds, and their smallest and largest value."""

    middle: float
    low: float
    high: float


def spread_of(values: Sequence[float]) -> Spread:
    """The median and the ends of some values."""
    return Spread(median(values), min(values), max(values))


def ratio(above: Measured, below: Measured) -> Spread:
    """Processor time of `above` / that of `below`, round by round."""
    return spread_of([a / b for a, b in zip(above.cpu, below.cpu, strict=True)])


def measure_loaders(
    loaders: Mapping[Name, DataLoader[list[Tensor]]], *, samples: int, rounds: int
) -> dict[Name, Measured]:
    """Let each loader read its samples, in turn, `rounds` times after a first round.

    The processor time of a worker includes what the loader does with a batch in the worker.
    """
    found = {name: Measured([], []) for name in loaders}
    workers: dict[Name, list[int]] = {}
    for i in range(1 + rounds):
        for name, loader in loaders.items():
            if i == 0:
                workers[name] = _start_workers(loader)
                continue
            before = sum(map(cpu_seconds, workers[name]))
            start = time.perf_counter()
            _read_all(loader)
            found[name].wall.append((time.perf_counter() - start) / samples)
            found[name].cpu.append((sum(map(cpu_seconds, workers[name])) - before) / samples)
    return found


def cpu_seconds(pid: int) -> float:
    """The processor time of a process and its threads so far, by Linux's clock of the process."""
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) makes its number


def _start_workers(loader: DataLoader[list[Tensor]]) -> list[int]:
    """Read all samples once; return the processes that do it, which stay."""
    others = {child.pid for child in multiprocessing.active_children()}
    _read_all(loader)
    started = {child.pid for child in multiprocessing.active_children()} - others
    return [pid for pid in started if pid is not None]


def _read_all(loader: DataLoader[list[Tensor]]) -> None:
    for _ in loader:
        pass
