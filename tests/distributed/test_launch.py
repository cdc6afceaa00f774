"""Processes of one run: their environment, their signals, and how they end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlnet.distributed.launch import launch
from nlnet.errors import ArgumentError
from tests.distributed.conftest import PRELUDE, TORCH_PRELUDE


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline, f"missing after a minute: {paths}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for_end(pids: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still alive: {pids}"
        time.sleep(0.05)


def test_a_run_without_ranks_is_refused():
    with pytest.raises(ArgumentError, match=r"^num_procs=0 .*use 1 or more"):
        launch(["true"], 0)


def test_the_environment_tells_each_rank_its_number(ranks, tmp_path: Path):
    code = "names = 'RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT'.split()\n"
    assert ranks(code + "note(json.dumps([os.environ[name] for name in names]))", 3) == 0
    told = [json.loads((tmp_path / str(i)).read_text()) for i in range(3)]
    assert [row[:5] for row in told] == [[str(i), str(i), "3", "3", "127.0.0.1"] for i in range(3)]
    assert len({row[5] for row in told}) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(2)", 2),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("time.sleep(0 if me else 60); sys.exit(5)", 5),  # the launcher ends the other one
        ("time.sleep(0.5 * me); sys.exit(3 + me)", 3),  # rank 0 fails first
    ],
)
def test_the_exit_code_is_that_of_the_first_failure(ranks, code: str, expected: int):
    start = time.monotonic()
    assert ranks(code, 2) == expected
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_a_rank_that_ignores_sigterm_is_killed(ranks, tmp_path: Path):
    code = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note(str(os.getpid()))
time.sleep(1)
time.sleep(0 if me else 60)
sys.exit(4)
"""
    start = time.monotonic()
    assert ranks(code, 2) == 4
    assert time.monotonic() - start < 12
    assert not is_alive(int((tmp_path / "0").read_text()))


LAUNCHER = """
import sys
from nlnet.distributed.launch import launch
sys.exit(launch([sys.executable, "-c", sys.argv[1], sys.argv[2]], 2))
"""


def start_launcher(code: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", LAUNCHER, PRELUDE + code, str(folder)]
    process = subprocess.Popen(command)
    wait_for(folder / "0", folder / "1")
    return process


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_every_rank(tmp_path: Path, signum: signal.Signals):
    code = """
def leave(signum, frame):
    note(f"got {signum}")
    sys.exit(128 + signum)
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(signum, leave)
note("ready")
time.sleep(60)
"""
    process = start_launcher(code, tmp_path)
    process.send_signal(signum)
    assert process.wait(30) == 128 + signum
    assert [(tmp_path / str(i)).read_text() for i in (0, 1)] == [f"got {int(signum)}"] * 2


@pytest.mark.slow
def test_a_signal_is_reported_rather_than_the_failure_that_it_causes(tmp_path: Path):
    """The launcher finds both ranks ended: rank 1 was killed, and rank 0 failed because of it."""
    code = """
note(str(os.getpid()))
while not os.path.exists(f"{sys.argv[1]}/go"):
    time.sleep(0.01)
if me == 1:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(1)
"""
    process = start_launcher(code, tmp_path)
    pids = [int((tmp_path / str(i)).read_text()) for i in (0, 1)]
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "go").touch()
    wait_for_end(pids, seconds=30)
    process.send_signal(signal.SIGCONT)
    assert process.wait(30) == 128 + signal.SIGKILL


@pytest.mark.slow
def test_no_rank_outlives_its_launcher(tmp_path: Path):
    code = TORCH_PRELUDE + "    note(str(os.getpid()))\n    time.sleep(60)"
    process = start_launcher(code, tmp_path)
    pids = [int((tmp_path / str(i)).read_text()) for i in (0, 1)]
    assert all(is_alive(pid) for pid in pids)
    process.kill()
    process.wait()
    wait_for_end(pids, seconds=5)
