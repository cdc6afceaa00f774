import importlib.util
import json
import sys
from collections.abc import Callable
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
def run_ranks() -> Callable[..., int]:
    """Run it in new processes: (out_dir, num_procs, **options) -> exit code."""

    def run(out_dir: Path, num_procs: int, **options: Any) -> int:
        out_dir.mkdir(exist_ok=True)
        return launch([sys.executable, str(PROGRAM), str(out_dir), json.dumps(options)], num_procs)

    return run
