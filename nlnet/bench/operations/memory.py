"""Peak memory of a training step of one block, measured in a fresh process each."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from nlnet.bench.memory import peak_resident_bytes, resident_bytes
from nlnet.bench.operations.calls import FORMS, block_step
from nlnet.bench.operations.shapes import SHAPES, Shape


def fresh_peak_bytes(form: str, name: str, shape: Shape, device: torch.device) -> int:
    """Return `_peak_bytes` of a block, measured in a new process.

    The processes are forked from one server, which imports this module once: the imports take
    seconds. The server's environment makes the C library give freed tensors back at once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    threads = torch.get_num_threads()
    with (
        environment(MALLOC_MMAP_THRESHOLD_=str(2**16)),
        ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        return pool.submit(_peak_bytes, form, name, shape, str(device), threads).result()


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables inside the block and restore the former values after it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _peak_bytes(form: str, name: str, shape: Shape, device: str, threads: int) -> int:
    """Return the bytes that one training step of a block needs beyond what was in use before."""
    torch.set_num_threads(threads)
    small = min(SHAPES[1], shape, key=lambda s: s.queries)
    # The first step loads every library that the measured step may need.
    block_step(FORMS[form](name, small), small, torch.device(device))()
    step = block_step(FORMS[form](name, shape), shape, torch.device(device))
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes()
    step()
    return peak_resident_bytes() - before
