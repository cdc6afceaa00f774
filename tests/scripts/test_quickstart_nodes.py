"""Two nodes of two ranks on this machine compute the steps of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.conftest import SMALL, few_videos
from tests.tools.test_train import FIVE, assert_close

__all__ = ["few_videos"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "quickstart_nodes.py"


@pytest.mark.slow
def test_two_nodes_of_two_ranks_train_as_one_process(few_videos: Path, tmp_path: Path):
    """Five steps with the same losses, weights and accuracy; the script alone makes 1,024 steps."""
    words = [*SMALL[1:], *FIVE, "trainer.epochs=null"]
    more = [part for word in words for part in ("--override", word)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--data", str(few_videos), *more],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 x cpu" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("top-1 of the validation videos after 2 epochs: ")
    assert last.endswith("on 2 nodes of 2 ranks: the same accuracy")
    runs = tmp_path / "outputs" / "quickstart"
    assert_close(runs / "nodes_2x2" / "train", runs / "non_local" / "train")
