"""tools/eval.py goes on after a SIGKILL."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.runs.partial import PARTIAL
from tests.tools.running import start

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
@pytest.mark.parametrize("num_procs", [1, 2])
def test_sigkill_loses_no_bit(
    tool: Tool,
    command: Callable[..., list[str]],
    trained: Path,
    tmp_path: Path,
    num_procs: int,
):
    words = (
        *(f"weights={trained / 'best.pt'}", "data.test=train", "trainer.fold_norms=false"),
        *("data.test_views.num_clips=30", f"dist.num_procs={num_procs}"),
    )
    done = tool("eval", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "smoke" / "eval"
    assert not (folder / PARTIAL).exists()
    shutil.move(folder, tmp_path / "whole")
    with start(command("eval", *words), tmp_path, own_group=True) as process:
        deadline = time.monotonic() + 120
        while not list(folder.glob(f"{PARTIAL}/*/*.npz")):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
    again = tool("eval", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "of 24 videos, which an earlier attempt scored" in again.stdout
    assert not (folder / PARTIAL).exists()
    for name in ("metrics.json", "predictions.csv", "scores.npz"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
