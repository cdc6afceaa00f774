import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nlnet.distributed.launch import launch

torch.set_num_threads(1)  # the tensors are so small that threads only wait for each other

PROGRAM = Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """A complete run with a tiny network, and its parts."""
    spec = importlib.util.spec_from_file_location("tiny_run", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, if the system has one: there, flushing a file to the disk takes no time.

    A killed process loses nothing that it has written, flushed or not.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture
def run_ranks() -> Callable[..., int]:
    """Run it in new processes: (out_dir, num_procs, **options) -> exit code."""

    def run(out_dir: Path, num_procs: int, **options: Any) -> int:
        out_dir.mkdir(exist_ok=True)
        return launch([sys.executable, str(PROGRAM), str(out_dir), json.dumps(options)], num_procs)

    return run
