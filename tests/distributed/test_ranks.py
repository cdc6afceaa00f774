import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nlnet.distributed.launch import launch
from nlnet.distributed.ranks import (
    all_sum,
    from_main,
    gather_objects,
    is_main,
    pick_device,
    process_group,
    rank,
    world_size,
)
from nlnet.errors import UsageError, UserError

CPU = torch.device("cpu")
PRELUDE = """
import json, os, signal, sys, time
me = int(os.environ["RANK"])
def note(text):
    with open(f"{sys.argv[1]}/{me}", "w") as file:
        file.write(text)
"""
TORCH_PRELUDE = """
import torch
from nlnet.distributed.ranks import all_sum, from_main, gather_objects
from nlnet.distributed.ranks import is_main, process_group, rank, world_size
with process_group(torch.device("cpu")):
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Callable[[str, int], int]:
    """Launch a piece of code as ranks; each may `note` a text in a file of its rank."""

    def run(code: str, num_procs: int) -> int:
        return launch([sys.executable, "-c", PRELUDE + code, str(tmp_path)], num_procs)

    return run


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline, f"never came: {paths}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for_death(pids: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still alive: {pids}"
        time.sleep(0.05)


def test_no_rank_at_all_is_refused():
    with pytest.raises(UsageError, match=r"^dist\.num_procs=0 .*use 1 or more"):
        launch(["true"], 0)


def test_alone():
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    x = torch.tensor([1.0, 2.0])
    assert all_sum(x) is x
    assert from_main(x) is x
    assert x.tolist() == [1.0, 2.0]
    assert gather_objects("x") == ["x"]
    with process_group(CPU):
        assert not dist.is_initialized()


def test_ranks_are_told_who_they_are(ranks, tmp_path: Path):
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
        ("time.sleep(0 if me else 60); sys.exit(5)", 5),  # the other one is ended
        ("time.sleep(0.5 * me); sys.exit(3 + me)", 3),  # the first one in time
    ],
)
def test_the_first_failure_is_the_answer(ranks, code: str, expected: int):
    start = time.monotonic()
    assert ranks(code, 2) == expected
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_a_rank_that_clings_to_life_is_killed(ranks, tmp_path: Path):
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
def test_of_two_deaths_at_once_the_signal_is_the_cause(tmp_path: Path):
    """A launcher that was not looking finds rank 0 failed for want of rank 1, which was killed."""
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
    wait_for_death(pids, seconds=30)
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
    wait_for_death(pids, seconds=5)


@pytest.mark.slow
def test_what_ranks_share(ranks, tmp_path: Path):
    code = """
    x = torch.tensor([rank() + 1.0, 10.0 * rank()])
    y = torch.tensor([rank() + 5])
    said = [rank(), world_size(), is_main(), all_sum(x).tolist(), x.tolist()]
    note(json.dumps([*said, from_main(y).tolist(), gather_objects({"rank": rank()})]))
"""
    assert ranks(TORCH_PRELUDE + code, 3) == 0
    for i in range(3):
        everyone = [{"rank": j} for j in range(3)]
        expected = [i, 3, i == 0, [6.0, 30.0], [6.0, 30.0], [5], everyone]
        assert json.loads((tmp_path / str(i)).read_text()) == expected


def test_the_group_is_left_whatever_happens(monkeypatch, tmp_path: Path):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):  # a sweep: one group after the other
        monkeypatch.setenv("MASTER_PORT", "0")
        with pytest.raises(KeyError), process_group(CPU):
            assert dist.is_initialized()
            raise KeyError
        assert not dist.is_initialized()


def test_tasks_of_slurm_that_do_not_know_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.raises(UserError, match="SLURM_NTASKS is 4"), process_group(CPU):
        pass
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with process_group(CPU):
        pass


def test_devices(monkeypatch):
    assert pick_device("cpu") == CPU
    with pytest.raises(UsageError, match=r"dist\.device: 'tpu' is not one of auto, cpu, cuda"):
        pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == CPU
    with pytest.raises(UsageError, match=r"no CUDA device, there are 0"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match=r"dist\.num_procs to 2"):
        pick_device("auto")


@pytest.mark.slow
def test_torchrun_finds_the_same_ranks(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PRELUDE + TORCH_PRELUDE + "    note(str(all_sum(torch.ones(1)).item()))\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, str(program), str(tmp_path)], check=True, env=environment, timeout=120
    )
    assert [(tmp_path / str(i)).read_text() for i in (0, 1)] == ["2.0", "2.0"]
