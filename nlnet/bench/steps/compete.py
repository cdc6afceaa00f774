"""Time a group of contenders in turn, each in its own process.

Separate processes keep memory and allocator settings apart. Taking turns lets other work on the
machine slow all contenders of a group alike.
"""

import multiprocessing
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from nlnet.bench.memory import peak_megabytes, restart_peak
from nlnet.bench.steps.arithmetic import arithmetic_of
from nlnet.bench.steps.calls import Phases, build_call
from nlnet.bench.steps.contenders import Contender
from nlnet.config import BenchmarkConfig
from nlnet.distributed.build import build_device
from nlnet.errors import UserError
from nlnet.numerics.denormals import flushed_denormals
from nlnet.trainer.build import apply_allocator

WARMUP = 2  # steps before the first timed one


@dataclass(frozen=True)
class ContenderResult:
    """What was measured of one contender; ratios are against the first of its group."""

    name: str
    training: bool
    precision: str
    configured: bool  # a training step with the run's own settings
    seconds: float  # median of a whole step
    phases: Phases  # medians
    speed: float  # the peer's seconds / seconds
    peak_mb: float
    memory: float  # peak / the peer's peak
    repeats: int


def compete(
    group: Sequence[Contender], run: BenchmarkConfig, batch: int, repeats: int
) -> list[ContenderResult]:
    """Return the result of each contender; the first one is the peer.

    Raises UserError if the process of a contender ends early.
    """
    context = multiprocessing.get_context("spawn")
    workers = []
    for contender in group:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, contender, run, batch), daemon=True)
        process.start()
        there.close()  # only the process holds it, so that its end is noticed here
        workers.append((process, here))
    times: list[list[Phases]] = [[] for _ in group]
    peaks = [0.0 for _ in group]
    for i in range(WARMUP + repeats):
        for k, (_, connection) in enumerate(workers):
            try:
                connection.send(True)
                phases, peaks[k] = connection.recv()
            except (EOFError, ConnectionError) as error:
                raise UserError(
                    f"the process of {group[k].name!r} ended before its step; its error is above"
                ) from error
            if i >= WARMUP:
                times[k].append(phases)
    for process, connection in workers:
        connection.send(False)
        process.join()
    peer_seconds = _median_seconds(times[0])
    return [
        ContenderResult(
            name=contender.name,
            training=contender.training,
            precision=contender.precision,
            configured=contender.training and contender.trainer == run.trainer,
            seconds=_median_seconds(taken),
            phases={name: statistics.median(t[name] for t in taken) for name in taken[0]},
            speed=peer_seconds / _median_seconds(taken),
            peak_mb=peak,
            memory=peak / peaks[0],
            repeats=len(taken),
        )
        for contender, taken, peak in zip(group, times, peaks, strict=True)
    ]


def kind(result: ContenderResult) -> str:
    """Return what the result timed."""
    return "training" if result.training else "evaluation"


def _median_seconds(times: Sequence[Phases]) -> float:
    """Return the median duration of a whole step."""
    return statistics.median(sum(phases.values()) for phases in times)


@flushed_denormals()
def _serve(
    connection: "Connection[Any, Any]", contender: Contender, run: BenchmarkConfig, batch: int
) -> None:
    """Run one step for each True that arrives, and send its phases and the peak memory in MB."""
    device = build_device(run.dist)
    if contender.trainer is not None:
        apply_allocator(contender.trainer)
    restart_peak(device)
    start = peak_megabytes(device)
    with arithmetic_of(contender):
        call = build_call(contender, run, batch, device)
        restart_peak(device)  # building and checking the network does not count
        while connection.recv():
            phases = call()
            connection.send((phases, peak_megabytes(device) - start))
