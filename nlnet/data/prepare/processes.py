"""A function in several processes, where a process that dies or hangs loses one item only."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """An item without a result, and why."""

    cause: str


@dataclass
class _Worker(Generic[Item]):
    process: BaseProcess
    connection: Connection
    number: int = -1  # of the item that it works on; -1 if it waits
    deadline: float = 0.0


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    time_limit: float,
) -> Iterator[tuple[int, Result | Lost]]:
    """Yield the number of each item with its result, in the order in which they are ready.

    The function, the items and the results must be picklable; the function must not raise. Without
    workers, the function runs in this process, without a time limit.

    Args:
        num_workers: number of processes
        time_limit: seconds for one item, after which its process is killed
    """
    if num_workers == 0:
        for number, item in enumerate(items):
            yield number, function(item)
        return
    waiting = deque(range(len(items)))
    workers: list[_Worker[Item]] = []
    try:
        workers = [_start(function) for _ in range(min(num_workers, len(items)))]
        for worker in workers:
            _give(worker, waiting, items, time_limit)
        while any(worker.number >= 0 for worker in workers):
            yield from _collect(workers, function, waiting, items, time_limit)
    finally:
        for worker in workers:
            _end(worker)


def _collect(
    workers: list["_Worker[Item]"],
    function: Callable[[Item], Result],
    waiting: deque[int],
    items: Sequence[Item],
    time_limit: float,
) -> Iterator[tuple[int, Result | Lost]]:
    """The results that are ready; starts a new process for each that died or was too slow."""
    busy = {worker.connection: worker for worker in workers if worker.number >= 0}
    patience = min(worker.deadline for worker in busy.values()) - time.monotonic()
    ready = wait(list(busy), max(patience, 0.0))
    for connection, worker in busy.items():
        number, result = worker.number, None
        if connection in ready:
            try:
                result = worker.connection.recv()
            except (EOFError, ConnectionError):
                worker.process.join()
                result = Lost(f"its process ended with exit code {worker.process.exitcode}")
        elif time.monotonic() >= worker.deadline:
            result = Lost(f"it took longer than {time_limit:g} seconds")
        if result is None:
            continue
        if isinstance(result, Lost):
            _end(worker)
            fresh = _start(function) if waiting else None
            if fresh is None:
                worker.number = -1
            else:
                worker.process, worker.connection = fresh.process, fresh.connection
        _give(worker, waiting, items, time_limit)
        yield number, result


def _give(
    worker: "_Worker[Item]", waiting: deque[int], items: Sequence[Item], time_limit: float
) -> None:
    """Send the next item to a worker, if there is one."""
    worker.number = -1
    if waiting:
        worker.number = waiting.popleft()
        worker.deadline = time.monotonic() + time_limit
        with suppress(ConnectionError):  # the process has died; `_collect` finds it
            worker.connection.send(items[worker.number])


def _start(function: Callable[[Item], Result]) -> "_Worker[Item]":
    context = multiprocessing.get_context("spawn")  # a forked process would share locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _end(worker: "_Worker[Item]") -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _work(function: Callable[[Item], Result], connection: Connection) -> None:
    """What a process does: apply the function to each item that comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and it ends this one
    with suppress(EOFError):  # the parent has ended
        while True:
            connection.send(function(connection.recv()))
