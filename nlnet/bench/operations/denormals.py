"""Time of the Gaussian, whose weights underflow, with denormal numbers and without them."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

import torch

from nlnet.bench.naive import NAIVE
from nlnet.bench.operations.calls import pairwise_step
from nlnet.bench.operations.shapes import Shape
from nlnet.bench.operations.tables import Row
from nlnet.bench.timing import interleaved
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.numerics.denormals import flushed_denormals

REPEATS = 3  # of a call; the naive form can take seconds


def underflow_row(shape: Shape) -> Row:
    """Time both Gaussians on the CPU in a process that flushes denormals and in one that does not.

    The values of `kept` and `flushed` are the seconds of each form, and of the embedded Gaussian.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    threads = torch.get_num_threads()
    values = {}
    for name in ("kept", "flushed"):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            values[name] = pool.submit(_times, shape, name == "flushed", threads).result()
    return Row(shape, values)


def _times(shape: Shape, flush: bool, threads: int) -> dict[str, float]:
    """Run in a new process, whose threads begin after the setting."""
    with flushed_denormals() if flush else nullcontext():
        torch.set_num_threads(threads)
        forms = {
            "ours": PAIRWISE["gaussian"],
            "naive": NAIVE["gaussian"],
            "embedded": PAIRWISE["embedded_gaussian"],
        }
        calls = {
            name: pairwise_step(form(shape.inner), shape, torch.device("cpu"))
            for name, form in forms.items()
        }
        return interleaved(calls, repeats=REPEATS)
