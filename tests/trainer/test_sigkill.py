"""SIGKILL at random moments: the resumed run ends with the bits of an undisturbed one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.conftest import PROGRAM

KILLS = """
import importlib.util, os, random, signal, sys, time
from pathlib import Path
import torch
from nlnet.checkpoint import LAST, read_checkpoint

torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("tiny_run", sys.argv[1])
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
top, rng = Path(sys.argv[2]), random.Random(7)
OPTIONS = {"settings": {"epochs": 8, "save_every_steps": 1, "keep_checkpoints": 3}}

def die_after(changes):
    "Kill this process instead of its next change of the disk after so many of them."
    left = [changes]
    def counted(change):
        def wrapper(*args):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args)
        return wrapper
    os.fsync, Path.replace = counted(os.fsync), counted(Path.replace)

def start(folder, changes=None):
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(top / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    if changes is not None:
        die_after(changes)
    try:
        tiny.train(folder, OPTIONS)
    except BaseException as error:
        print("damaged by", repr(error), flush=True)
        os._exit(1)
    os._exit(0)

def assert_same(folder):
    one, other = read_checkpoint(top / "whole" / LAST), read_checkpoint(folder / LAST)
    assert all(torch.equal(value, other.model[name]) for name, value in one.model.items())
    a, b = one.training, other.training
    torch.testing.assert_close(a.optimizer["state"], b.optimizer["state"], rtol=0, atol=0)
    assert a.progress.global_step == b.progress.global_step == 8 * tiny.STEPS_PER_EPOCH
    for x, y in zip(a.progress.history, b.progress.history, strict=True):
        assert (x.train, x.val) == (y.train, y.val)

begin = time.monotonic()
assert os.waitpid(start(top / "whole"), 0)[1] == 0
span = time.monotonic() - begin
kills, inside, runs = 0, 0, 0
while kills < 20:
    folder = top / f"run{runs}"
    changes = rng.randrange(1, 120) if kills % 2 else None
    child = start(folder, changes)
    if changes is None:
        time.sleep(rng.uniform(0, span / 5))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        inside += bool(list(folder.glob("last*.partial")))
    else:  # it ended before its kill
        assert status == 0
        assert_same(folder)
        runs += 1
assert os.waitpid(start(top / f"run{runs}"), 0)[1] == 0
assert_same(top / f"run{runs}")
said = (top / "said.txt").read_text()
assert "damaged" not in said, said
assert said.count("resumes from") >= 10
assert inside >= 3, inside
print(kills, "kills,", inside, "while a checkpoint was written,", runs + 1, "runs")
"""


@pytest.mark.slow
def test_20_of_20_kills_change_no_bit(memory_folder: Path):
    """Ten kills by the clock, ten at a change of the disk, most of them inside a checkpoint.

    Every process computes the same operations, so the bits are equal on every processor.
    """
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(PROGRAM), str(memory_folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 kills"), done.stdout
