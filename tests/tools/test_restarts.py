"""Ranks that are started again: by nlnet itself and by torchrun."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.running import ENVIRONMENT, start, wait_for
from tests.tools.test_train import Tool, children, saved

Command = Callable[..., list[str]]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.slow
def test_a_killed_rank_is_started_again(command: Command, tmp_path: Path):
    folder = tmp_path / "outputs" / "smoke" / "train"
    words = ("dist.num_procs=2", "dist.max_restarts=1", "trainer.save_every_steps=1")
    with start(command("train", *words, "trainer.max_steps=60"), tmp_path) as process:
        wait_for(folder / "last.pt", process)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    # The other rank names it, or the launcher does if it is faster.
    assert re.search(r"restart 1 of 1: (rank 1 .*has ended|a rank was ended by SIGKILL)", out)
    assert "resumes from last" in out
    assert saved(folder)["progress"]["global_step"] == 60


def run_torchrun(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, "--max-restarts=2", *words[1:]],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_a_mistake_is_said_once_and_not_tried_again(command: Command, tmp_path: Path):
    done = run_torchrun(command("train", "data.batch_size=9"), tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "use 8 or 10" in errors[0]
    assert done.stderr.count("failed (exitcode: 2)") == 3  # attempts; two of them do nothing


CRASH = """
import sys
from pathlib import Path
from nlnet.cli.mistakes import one_line_errors, say_tracebacks_once
with open(sys.argv[1], "a") as file:
    file.write("x")
say_tracebacks_once()
with one_line_errors():
    raise RuntimeError("always")
"""


@pytest.mark.slow
def test_a_crash_loop_ends_after_the_restarts_with_one_traceback(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(CRASH)
    done = run_torchrun([sys.executable, str(program), str(tmp_path / "attempts")], tmp_path)
    assert done.returncode == 1
    assert 3 <= len((tmp_path / "attempts").read_text()) <= 6  # of 2 ranks; one may be too late
    assert done.stderr.count("RuntimeError: always") == 1


@pytest.mark.slow
def test_num_procs_does_not_try_a_mistake_again(tool: Tool, tmp_path: Path):
    words = ("dist.num_procs=2", "dist.max_restarts=2", "data.train=nowhere")
    done = tool("train", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "nowhere" in done.stderr
    assert "restart" not in done.stdout
