"""Programs that tests start as ranks."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.distributed.launch import launch

PRELUDE = """
import json, os, signal, sys, time
me = int(os.environ["RANK"])
def note(text):
    with open(f"{sys.argv[1]}/{me}", "w") as file:
        file.write(text)
"""
TORCH_PRELUDE = """
import torch
from nlnet.distributed.ranks import all_sum, from_main, gather_objects
from nlnet.distributed.ranks import is_main, process_group, rank, world_size
with process_group(torch.device("cpu")):
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Callable[[str, int], int]:
    """Run a program as ranks; `note` in it writes a text to the file of its rank in tmp_path."""

    def run(code: str, num_procs: int) -> int:
        return launch([sys.executable, "-c", PRELUDE + code, str(tmp_path)], num_procs)

    return run
