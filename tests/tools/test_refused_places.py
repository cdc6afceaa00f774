"""Places that cannot be written, two runs in one folder, Ctrl-C: one line and the exit code."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.running import start, wait_for

Tool = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., list[str]]


@pytest.mark.parametrize("name", ["train", "eval"])
def test_an_output_folder_that_is_a_file_is_named(
    name: str, trained: Path, tool: Tool, tmp_path: Path
):
    (tmp_path / "outputs").touch()
    done = tool(name, f"weights={trained / 'best.pt'}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: outputs/smoke/{name}: cannot be used (Not a directory)")
    assert done.stderr.count("\n") == 1


def test_a_read_only_output_folder_is_named(tool: Tool, tmp_path: Path):
    """No process can make a file in /sys, the user root included."""
    (tmp_path / "outputs").symlink_to("/sys")
    done = tool("train", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: outputs/smoke: cannot be used (")
    assert done.stderr.count("\n") == 1


def test_an_evaluation_prints_its_numbers_before_it_writes(
    trained: Path, tool: Tool, tmp_path: Path
):
    (tmp_path / "outputs" / "smoke" / "eval" / "metrics.json").mkdir(parents=True)
    done = tool("eval", f"weights={trained / 'best.pt'}", cwd=tmp_path)
    assert done.returncode == 1
    assert "top1 " in done.stdout and "(7 videos" in done.stdout
    assert "metrics.json: cannot be written (Is a directory)" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(
    command: Command, tool: Tool, tmp_path: Path
):
    words = ("trainer.max_steps=30", "trainer.save_every_steps=1")
    with start(command("train", *words), tmp_path) as first:
        wait_for(tmp_path / "outputs" / "smoke" / "train" / "last.pt", first)
        os.kill(first.pid, signal.SIGSTOP)
        done = tool("train", *words, cwd=tmp_path)
        os.kill(first.pid, signal.SIGCONT)
        _, err = first.communicate(timeout=120)
    assert (first.returncode, err) == (0, "")
    assert done.returncode == 1
    assert f"process {first.pid} on " in done.stderr and "name=NAME" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("delay", [0.3, 1.5])
def test_ctrl_c_while_libraries_are_loaded_costs_one_line(
    delay: float, command: Command, tmp_path: Path
):
    with start(command("eval"), tmp_path) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted\n"
