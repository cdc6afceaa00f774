"""Train the network of the quickstart in one process and on several nodes, and compare both.

The nodes are agents of torchrun on this machine, so no other machine is needed. All ranks together
train on the batch of the one process, and batch norm takes its statistics over all ranks. Both runs
therefore do the same training, up to rounding. If scripts/quickstart.sh has trained the network on
a CPU already, the run in one process is not repeated.

Examples:
  python scripts/quickstart_nodes.py
  python scripts/quickstart_nodes.py --nodes 4 --ranks 1
  python scripts/quickstart_nodes.py --override trainer.epochs=2 --name quickstart/short
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from local_nodes import ENVIRONMENT, TRAIN, agent_command

MAKE = Path(__file__).with_name("make_same_different.py")
ALLOWED = 1.0  # points between the accuracies of both runs: 5 of 512 videos
WORDS = ("+experiment=quickstart", "non_local=nl2_tiny", "dist.device=cpu")
SYNC = ("model.norm=sync", "model.non_local.norm=sync", "data.num_workers=0")


def run(*command: str) -> None:
    """Run a command; end with its exit code if it fails."""
    code = subprocess.run([sys.executable, *command]).returncode
    if code != 0:
        sys.exit(code)


def run_nodes(nodes: int, ranks: int, words: list[str]) -> None:
    """Train on several nodes; end with exit code 1 if an agent fails."""
    command = agent_command(nodes, ranks, words)
    environment = {**os.environ, **ENVIRONMENT}
    agents = [subprocess.Popen(command, env=environment) for _ in range(nodes)]
    if any([agent.wait() for agent in agents]):
        sys.exit(1)


def accuracies(name: str) -> list[float]:
    """The accuracy on the validation videos after each epoch of a run."""
    metrics = json.loads(Path("outputs", name, "train", "metrics.json").read_text())
    return [epoch["val"]["top1"] for epoch in metrics["epochs"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2, help="(default %(default)s)")
    parser.add_argument("--ranks", type=int, default=2, help="of a node (default %(default)s)")
    parser.add_argument("--data", help="folder of videos (default data/same_different, made here)")
    parser.add_argument("--name", default="quickstart", help="of the folder below outputs/")
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="for both runs"
    )
    args = parser.parse_args()
    if args.data is None:
        run(str(MAKE))
    words = [*WORDS, *(() if args.data is None else (f"data.root={args.data}",)), *args.override]
    alone, spread = f"{args.name}/non_local", f"{args.name}/nodes_{args.nodes}x{args.ranks}"
    run(str(TRAIN), *words, f"name={alone}")
    run_nodes(args.nodes, args.ranks, [*words, *SYNC, f"name={spread}"])
    one, many = accuracies(alone), accuracies(spread)
    print(f"\nepoch   one process   {args.nodes} nodes x {args.ranks} ranks")
    for epoch, (a, b) in enumerate(zip(one, many, strict=True), 1):
        print(f"{epoch:<5} {a:11.1f} % {b:15.1f} %")
    same = abs(one[-1] - many[-1]) <= ALLOWED
    print(
        f"top-1 of the validation videos after {len(one)} epochs: {one[-1]:.1f} % in one process, "
        f"{many[-1]:.1f} % on {args.nodes} nodes of {args.ranks} ranks: "
        f"{'the same accuracy' if same else 'NOT the same accuracy'}"
    )
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
