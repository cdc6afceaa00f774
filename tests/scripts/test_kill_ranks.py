"""Ranks and nodes that are killed under torchrun; scripts/kill_ranks.py kills more of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--kills=2"], ["--kills=1", "--nodes=2"]], ids=" ".join)
def test_killed_ranks_end_with_the_same_bits(words: list[str]):
    """The bits are equal on every processor: both runs do the same operations in the same order."""
    command = [
        sys.executable,
        str(ROOT / "scripts" / "kill_ranks.py"),
        "--steps=150",
        "--between=1",
        *words,
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = re.match(r"--kills=(\d+)", words[0])
    assert kills is not None
    assert f"{kills[1]} kills, longest time" in done.stdout
    assert done.stdout.endswith("the final weights are equal\n")
