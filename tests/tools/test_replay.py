"""Training with a step that is not finite, and the tool that rebuilds its clips."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nlnet.distributed.launch import launch
from nlnet.runs.skipped import read_skipped
from tests.tools.conftest import Tool, run_command

PROGRAM = str(Path(__file__).with_name("faulty_train.py"))
FAULTY, STOP = 5, 4  # of 6 steps in 2 epochs


@pytest.mark.slow
def test_a_skipped_step_is_rebuilt_by_the_tool(
    command: Callable[..., list[str]], tool_alone: Tool, tmp_path: Path, monkeypatch
):
    """In another process, after the run was stopped and resumed, and for two ranks."""
    words = command("train", "data.num_workers=1", "trainer.accumulate=2")[2:]
    for _ in range(2):
        done = run_command([sys.executable, PROGRAM, str(FAULTY), str(STOP), *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 2, step 2: the loss (nan) or its gradient (nan) is not finite" in done.stdout
    assert "1 of 6 steps were skipped" in done.stdout
    folder = tmp_path / "outputs" / "smoke" / "train"
    assert "resumes from last.pt, after 4 steps" in (folder / "log.txt").read_text()
    (step,) = read_skipped(folder).values()

    said = tool_alone("replay", str(folder), str(FAULTY), "--picture", "x.png", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert f"8 clips, sha256 {step.sha256}" in said.stdout
    assert [line.split()[-1] for line in said.stdout.splitlines()[:8]] == step.files
    assert "equal to the clips that the run skipped" in said.stdout
    assert (tmp_path / "x.png").exists()
    assert re.search(r"tools/replay\.py outputs/smoke/train 5$", done.stdout, re.MULTILINE)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    ranks = [sys.executable, PROGRAM, str(FAULTY), "0", *words, "name=ranks"]
    assert launch(ranks, 2) == 0
    assert read_skipped(tmp_path / "outputs" / "ranks" / "train") == {FAULTY: step}
