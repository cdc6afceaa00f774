"""scripts/slurm_train.sh, with programs that stand in for srun, scancel and scontrol."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.conftest import SMALL, few_videos  # noqa: F401

ROOT = Path(__file__).parents[2]
COMMANDS = {
    # Without its own option, it runs the command, and notes the process.
    "srun": 'shift; echo $$ > "$JOB/step"; exec "$@"',
    # It signals every process of the step: the agent and its ranks.
    "scancel": 'p=$(cat "$JOB/step"); kill -USR1 $p $(pgrep -P $p)',
    "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "$@" > "$JOB/requeued"; fi',
}


@pytest.mark.slow
def test_the_signal_before_the_time_limit_saves_the_run_and_requeues_the_job(
    few_videos: Path,  # noqa: F811
    tmp_path: Path,
):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in COMMANDS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JOB": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "NLNET_PROCS": "2",
        **{"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "1"},
        **{"SLURM_JOB_NODELIST": "localhost", "SLURM_NTASKS": "1"},
    }
    folder = tmp_path / "run"
    words = [*SMALL, f"data.root={few_videos}", "trainer.max_steps=9000"]
    words += ["trainer.save_every_steps=1", "trainer.eval_every=99", f"hydra.run.dir={folder}"]
    command = ["bash", str(ROOT / "scripts" / "slurm_train.sh"), *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        deadline = time.monotonic() + 200
        while not (folder / "last.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        out = process.communicate(timeout=200)[0].decode()
    assert process.returncode == 0, out
    assert "asked to stop: saved last.pt" in out
    assert out.count("2 x cpu") == 1  # the agent did not train again
    assert (tmp_path / "requeued").read_text() == f"requeue {os.getpid()}\n"
