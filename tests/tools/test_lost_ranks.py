"""A rank that is killed or stopped: the others end, and name it, its step and its files."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.running import start, wait_for
from tests.tools.test_train import children, is_alive

Command = Callable[..., list[str]]


def pid_of(launcher: int, rank: int) -> int:
    """The process of a rank."""
    for pid in children(launcher):
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"no rank {rank}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "rank", "what", "strategy"),
    [
        (signal.SIGSTOP, 1, "is stopped", "ddp"),
        (signal.SIGSTOP, 0, "is stopped", "ddp"),
        (signal.SIGKILL, 1, "has ended", "ddp"),
        (signal.SIGKILL, 1, "has ended", "fsdp"),
    ],
)
def test_the_other_rank_names_it(
    signum: signal.Signals, rank: int, what: str, strategy: str, command: Command, tmp_path: Path
):
    words = ("dist.num_procs=2", "trainer.max_steps=9000", "trainer.save_every_steps=1")
    # A rank that is killed is noticed at once, whatever the limit.
    limit = 20 if signum == signal.SIGSTOP else 3600
    words += (f"dist.strategy={strategy}", f"dist.timeout={limit}", "trainer.eval_every=100")
    with start(command("train", *words), tmp_path) as process:
        wait_for(tmp_path / "outputs/smoke/train/last.prev.pt", process)  # after the first step
        victim = pid_of(process.pid, rank)
        os.kill(victim, signum)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    (error,) = err.splitlines()
    named = rf"rank {rank} \(process {victim} on \S+\) {what} at epoch \d+, step \d+, where it"
    assert re.search(rf"{named} \w+ (on )?\S+\.mp4, \S+\.mp4, \S+\.mp4 and 1 more", error), error
    assert error.endswith("the same command resumes from the last checkpoint")
    assert signum == signal.SIGKILL or "raise dist.timeout" in error
    assert not is_alive(victim)
