"""Train and compare two small networks on "same or different", then say what came out.

A coloured shape appears in the first frames of a clip and vanishes; another one appears in the
last frames, elsewhere. Same object or a different one? A plain C2D never holds both in one
operation; one with non-local blocks does.

Examples:
  python scripts/quickstart.py
  python scripts/quickstart.py --seed 1
  python scripts/quickstart.py --override trainer.epochs=2
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "plain": ("C2D without non-local blocks", "non_local=none"),
    "non_local": ("the same C2D with 2 non-local blocks", "non_local=nl2_tiny"),
}
NEXT = (
    "tensorboard --logdir outputs",
    "python tools/train.py -m +experiment=quickstart +sweep=pairwise",
    "python tools/train.py +experiment=folder model=i3d_tiny data.root=YOUR_FOLDER",
)


def run(*words: str) -> None:
    """Run one of the project's own commands, shown as a user would type it."""
    print(f"\n$ python {' '.join(words)}", flush=True)
    # Threads that wait without spinning leave their core to the processes that decode.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    code = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment).returncode
    if code != 0:
        sys.exit(code)


def train_and_evaluate(network: str, out: Path, seed: int, overrides: list[str]) -> dict:
    """Metrics of one network on the held-out split."""
    name = f"{out.relative_to('outputs')}/{network}"
    words = ["+experiment=quickstart", NETWORKS[network][1], f"name={name}", f"seed={seed}"]
    words += overrides
    run("tools/train.py", *words)
    run("tools/eval.py", *words, f"weights={out}/{network}/train/best.pt")
    return json.loads((ROOT / out / network / "eval" / "metrics.json").read_text())


def report(summary: dict[str, dict], seconds: float, path: Path) -> str:
    """What the two numbers are and what they mean."""
    lines = ["", "Same or different? Top-1 on held-out videos, chance is 50 %:", ""]
    for network, (words, _) in NETWORKS.items():
        top1 = summary[network]["top1"]
        bar = "#" * round(top1 / 2.5)
        lines.append(f"  {words:<38} {top1:5.1f} %  {bar}")
    lines += [
        "",
        "Both saw the same videos for the same number of steps. The plain network looks at one",
        "frame at a time and averages at the end: what it says of the first object has no way to",
        "depend on the second. A non-local block relates every position to every other.",
        "",
        f"{seconds / 60:.1f} minutes; the figures: {path}",
        "Try next:",
        *(f"  {command}" for command in NEXT),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default 0)")
    parser.add_argument(
        "--out", type=Path, help="below outputs/ (default outputs/quickstart, for seed N ..._N)"
    )
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="for both networks"
    )
    args = parser.parse_args()
    if args.out is None:
        args.out = Path("outputs") / ("quickstart" + (f"_{args.seed}" if args.seed else ""))
    if args.out.parts[0] != "outputs" or len(args.out.parts) < 2:
        parser.error(f"--out {args.out}: give a folder below outputs/")
    start = time.perf_counter()
    run("scripts/make_same_different.py")
    summary: dict[str, dict] = {
        network: train_and_evaluate(network, args.out, args.seed, args.override)
        for network in NETWORKS
    }
    path = args.out / "summary.json"
    (ROOT / path).write_text(json.dumps(summary, indent=2) + "\n")
    print(report(summary, time.perf_counter() - start, path))


if __name__ == "__main__":
    main()
