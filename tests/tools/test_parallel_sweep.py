"""A sweep whose runs are processes of joblib."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.conftest import Tool
from tests.tools.running import start

JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "data.num_workers=1")


def group(leader: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.slow
def test_a_failed_run_is_in_the_table_and_the_others_have_scores(tool: Tool, tmp_path: Path):
    done = tool("train", "-m", *JOBLIB, "trainer.max_steps=3", "optim.lr=0.1,-1", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("error: 1 of 2 runs of the sweep failed; see the table\n")
    rows = (tmp_path / "outputs" / "smoke" / "sweep" / "table.csv").read_text().splitlines()
    assert rows[0].startswith("optim.lr,best_top1") and rows[0].endswith(",error")
    assert rows[1].startswith("0.1,") and rows[1].endswith(",")
    assert rows[2].startswith("-1,") and "must be a number above 0" in rows[2]


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["sweep", "run"])
def test_no_process_outlives_a_sweep(
    command: Callable[..., list[str]], tmp_path: Path, killed: str
):
    words = command("train", "-m", *JOBLIB, "trainer.max_steps=3000", "seed=0,1")
    sweep = start(words, tmp_path, own_group=True)
    logs = tmp_path / "outputs" / "smoke" / "sweep"

    def both_train() -> bool:
        return len([log for log in logs.glob("*/log.txt") if "epoch 1" in log.read_text()]) == 2

    try:
        wait_until(both_train, "no epoch")
        if killed == "sweep":
            os.kill(sweep.pid, signal.SIGKILL)
        else:
            for path in logs.glob("seed=1/.lock"):
                os.kill(int(path.read_text().split()[1]), signal.SIGKILL)
        _, errors = sweep.communicate(timeout=120)
        wait_until(lambda: not group(sweep.pid), "processes are left")
    finally:
        for pid in group(sweep.pid):
            os.kill(pid, signal.SIGKILL)
    if killed == "sweep":  # its runs have saved themselves
        assert len(list(logs.glob("*/last.pt"))) == 2
        assert all("asked to stop" in log.read_text() for log in logs.glob("*/log.txt"))
    else:
        assert sweep.returncode == 1
        assert "error: a process of the sweep was ended" in errors
        assert "Traceback" not in errors
        assert (logs / "table.md").exists()
