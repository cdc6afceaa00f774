"""Signals to all processes of a training run at once, as `timeout`, Ctrl-C and SLURM send them."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tools.running import start, wait_for

Command = Callable[..., list[str]]
WORDS = ("trainer.save_every_steps=1", "data.num_workers=2", "trainer.epochs=40")
WORDS += ("trainer.max_steps=null",)


def steps(folder: Path) -> int:
    return torch.load(folder / "last.pt", weights_only=True)["progress"]["global_step"]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_the_process_group_saves_the_run(
    signum: signal.Signals, command: Command, tmp_path: Path
):
    """Fault R1: the workers died of it, and the run with them, before it had saved itself."""
    folder = tmp_path / "outputs" / "smoke" / "train"
    with start(command("train", *WORDS), tmp_path, own_group=True) as process:
        wait_for(folder / "last.pt", process)
        os.killpg(process.pid, signum)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, err
    assert err == ""
    assert f"asked to stop: saved last.pt after step {steps(folder)};" in out


@pytest.mark.slow
def test_sigterm_to_the_agent_of_torchrun_saves_the_run(command: Command, tmp_path: Path):
    folder = tmp_path / "outputs" / "smoke" / "train"
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    python, *words = command("train", *WORDS, "data.num_workers=1")
    assert python == sys.executable
    with start([*agent, *words], tmp_path, own_group=True) as process:
        wait_for(folder / "last.pt", process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=90)
    assert process.returncode != 0
    assert f"asked to stop: saved last.pt after step {steps(folder)};" in out
    assert "DataLoader" not in err
