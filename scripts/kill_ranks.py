"""Kill ranks, or whole nodes, of a training run under torchrun, and check the final weights.

    python scripts/kill_ranks.py --kills 20
    python scripts/kill_ranks.py --kills 20 --nodes 2
    python scripts/kill_ranks.py --kills 20 --nodes 1 2

One process group of two ranks trains without a disturbance. The same run is then trained while
SIGKILL ends a rank (with --nodes 2: an agent of torchrun and its ranks) at random moments. torchrun
starts the ranks again; this script starts the agents again, as a scheduler would. The final weights
and the state of the optimizer must have the same bits. Both nodes are on this machine.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from local_nodes import ENVIRONMENT, agent_command

from nlnet.checkpoint import LAST, read_checkpoint

ROOT = Path(__file__).parents[1]
WORDS = (
    *("+experiment=smoke", "dist.device=cpu", "data.num_workers=1", "data.batch_size=8"),
    *("trainer.epochs=null", "trainer.eval_every=50", "trainer.save_every_steps=3"),
)
MOST = 300.0  # seconds from a kill to the next step


class Group:
    """The agents of one run on this machine; `nodes` of them with `ranks` ranks each."""

    def __init__(self, nodes: int, ranks: int, words: list[str], folder: Path) -> None:
        self.folder = folder
        self.command = agent_command(nodes, ranks, words, max_restarts=1000)
        self.agents = [self._start() for _ in range(nodes)]

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(
                self.command, cwd=self.folder, stdout=said, stderr=said, start_new_session=True
            )

    def kill(self, rng: random.Random) -> str:
        """End a rank, or a node if there are several; say which."""
        node = rng.randrange(len(self.agents))
        agent = self.agents[node]
        ranks = children(agent.pid)
        if len(self.agents) == 1:
            if not ranks:
                return ""
            victim = rng.choice(ranks)
            os.kill(victim, signal.SIGKILL)
            return f"rank {ranks.index(victim)}"
        for pid in (agent.pid, *ranks):
            os.kill(pid, signal.SIGKILL)
        agent.wait()
        return f"node {node}"

    def restart_agents(self) -> None:
        """Start the agents that have ended, as a scheduler does."""
        for i, agent in enumerate(self.agents):
            if agent.poll() not in (None, 0):
                self.agents[i] = self._start()

    def is_done(self) -> bool:
        """Whether all agents have ended without an error."""
        return all(agent.poll() == 0 for agent in self.agents)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resumptions(folder: Path) -> int:
    """How often the run has started or has gone on from a checkpoint."""
    log = folder / "log.txt"
    return log.read_text().count(" parameters\n") if log.exists() else 0


def wait_until_resumed(group: Group, folder: Path, before: int) -> float:
    """Return the seconds until the run goes on."""
    start = time.monotonic()
    while resumptions(folder) == before and not group.is_done():
        group.restart_agents()
        if time.monotonic() - start > MOST:
            raise SystemExit(f"the run does not go on:\n{(group.folder / 'said.txt').read_text()}")
        time.sleep(0.1)
    return time.monotonic() - start


def disturbed(
    args: argparse.Namespace, nodes: int, words: list[str], cwd: Path, folder: Path
) -> list[float]:
    """Train while processes are killed; return the seconds from each kill to the resumption."""
    rng = random.Random(args.seed)
    group = Group(nodes, 2 // nodes, words, cwd)
    waits: list[float] = []
    wait_until_resumed(group, folder, 0)
    while len(waits) < args.kills and not group.is_done():
        time.sleep(rng.uniform(0, args.between))
        before = resumptions(folder)
        if victim := group.kill(rng):
            waits.append(wait_until_resumed(group, folder, before))
            print(f"kill {len(waits)}: {victim}, resumed after {waits[-1]:.1f} s", flush=True)
    deadline = time.monotonic() + 60 * MOST
    while not group.is_done() and time.monotonic() < deadline:
        group.restart_agents()
        time.sleep(0.2)
    return waits


def same_bits(one: Path, other: Path) -> bool:
    """Whether two checkpoints have the same weights and the same state of the optimizer."""
    a, b = (read_checkpoint(folder / LAST) for folder in (one, other))
    assert a.training is not None and b.training is not None
    pairs = [
        (a.model, b.model),
        (a.training.optimizer["state"], b.training.optimizer["state"]),
        (a.training.progress.global_step, b.training.progress.global_step),
    ]
    try:
        for mine, other_one in pairs:
            torch.testing.assert_close(mine, other_one, rtol=0, atol=0, equal_nan=True)
    except AssertionError as error:
        print(error)
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1], choices=(1, 2))
    parser.add_argument("--steps", type=int, default=600, help="of the run")
    parser.add_argument("--between", type=float, default=6.0, help="most seconds between kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        cwd = Path(name)
        make = [sys.executable, str(ROOT / "scripts" / "make_same_different.py"), "--out", "few"]
        sizes = ["--train", "24", "--val", "8", "--test", "8", "--workers", "1"]
        subprocess.run([*make, *sizes], cwd=cwd, check=True, stdout=subprocess.DEVNULL)
        words = [*WORDS, "data.root=few", f"trainer.max_steps={args.steps}"]
        whole = Group(1, 2, [*words, "name=whole"], cwd)
        whole.agents[0].wait()
        failed = False
        for nodes in args.nodes:
            run = f"kills_{nodes}"
            folder = cwd / "outputs" / run / "train"
            waits = disturbed(args, nodes, [*words, f"name={run}"], cwd, folder)
            equal = same_bits(cwd / "outputs" / "whole" / "train", folder)
            print(
                f"{nodes} nodes: {len(waits)} kills, longest time to the resumption "
                f"{max(waits):.1f} s; the final weights are {'equal' if equal else 'NOT EQUAL'}"
            )
            failed |= not equal or len(waits) < args.kills
        if failed:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
