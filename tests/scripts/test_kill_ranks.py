"""Ranks and nodes that are killed under torchrun; scripts/kill_ranks.py kills more of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_killed_ranks_and_nodes_end_with_the_same_bits():
    """The bits are equal on every processor: all runs do the same operations in the same order."""
    script = str(ROOT / "scripts" / "kill_ranks.py")
    sizes = ["--kills=1", "--nodes", "1", "2", "--steps=150", "--between=1"]
    done = subprocess.run(
        [sys.executable, script, *sizes],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for nodes in (1, 2):
        assert f"{nodes} nodes: 1 kills, longest time" in done.stdout
    assert done.stdout.count("the final weights are equal\n") == 2
