"""Train two small networks on "same or different", compare them and print the result.

A colored shape appears in the first frames of a clip and disappears. Another one appears in the
last frames at another place. Are both the same object? A plain C2D has no operation that takes
both objects as input. A non-local block is such an operation.

Examples:
  python scripts/quickstart.py
  python scripts/quickstart.py --seed 1
  python scripts/quickstart.py --override trainer.epochs=2
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from nlnet.files import write_atomic

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "plain": ("C2D without non-local blocks", "non_local=none"),
    "non_local": ("the same C2D with 2 non-local blocks", "non_local=nl2_tiny"),
}
NEXT = (
    "tensorboard --logdir outputs",
    "python tools/train.py -m +experiment=quickstart +sweep=pairwise",
    "python tools/train.py +experiment=folder_small data.root=YOUR_FOLDER",
)


def run(*words: str) -> None:
    """Print a command of this project as a user types it, and run it."""
    print(f"\n$ python {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if code != 0:
        sys.exit(code)


def train_and_evaluate(network: str, out: Path, seed: int, overrides: list[str]) -> dict:
    """The metrics of one network on the test split."""
    name = f"{out.relative_to('outputs')}/{network}"
    words = ["+experiment=quickstart", NETWORKS[network][1], f"name={name}", f"seed={seed}"]
    words += overrides
    run("tools/train.py", *words)
    run("tools/eval.py", *words, f"weights={out}/{network}/train/best.pt")
    return json.loads((ROOT / out / network / "eval" / "metrics.json").read_text())


def report(summary: dict[str, dict], seconds: float, path: Path) -> str:
    """The two scores and an explanation, as text."""
    lines = ["", "Same or different? Top-1 on test videos (chance is 50 %):", ""]
    for network, (words, _) in NETWORKS.items():
        top1 = summary[network]["top1"]
        bar = "#" * round(top1 / 2.5)
        lines.append(f"  {words:<38} {top1:5.1f} %  {bar}")
    lines += [
        "",
        "Both networks trained on the same videos for the same number of steps. The plain network",
        "processes each frame separately and averages the frames at the end, so it cannot compare",
        "the two objects. A non-local block computes relations between all positions of the clip.",
        "",
        f"{seconds / 60:.1f} minutes; all metrics: {path}",
        "Try next:",
        *(f"  {command}" for command in NEXT),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder below outputs/ (default outputs/quickstart, with _N for seed N)",
    )
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for both networks",
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
    write_atomic(ROOT / path, (json.dumps(summary, indent=2) + "\n").encode())
    print(report(summary, time.perf_counter() - start, path))


if __name__ == "__main__":
    main()
