"""Train a video network, or resume its training: the same command does both.

Examples:
  python tools/train.py +experiment=i3d_nl5 data.root=/data/kinetics400 dist.num_procs=8
  python tools/train.py +experiment=folder model=i3d_tiny data.root=my_videos weights=best.pt
  python tools/train.py -m +experiment=c2d_nl1 +sweep=pairwise
  python tools/train.py +experiment=quickstart +debug=overfit

A run writes the folder outputs/<name>/train: config.yaml, last.pt, best.pt, metrics.json, log.txt
and TensorBoard events. configs/README.md explains the words of the command line.
Debug runs have their own folders: +debug=overfit learns one batch, +debug=short makes two steps,
+debug=profile writes a trace of five steps and the share of the device's speed that they reach.
"""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from nlnet.cli.tool import run_tool

if TYPE_CHECKING:
    from nlnet.config import RunConfig


def main(run: "RunConfig", out_dir: Path) -> float:
    """Train in this process, or in as many ranks as dist.num_procs says; the best score."""
    from nlnet.cli.ranks import is_rank, launch_ranks
    from nlnet.jobs.train import check_training, claim, train
    from nlnet.runs.record import METRICS, read_best_score

    check_training(run)
    # If torchrun or SLURM started the ranks, each composed the same configuration.
    with nullcontext() if os.environ.get("RANK", "0") != "0" else claim(run, out_dir):
        if is_rank() or run.dist.num_procs == 1:
            return train(run, out_dir)
        dist = run.dist
        launch_ranks(Path(__file__), out_dir / "config.yaml", dist.num_procs, dist.max_restarts)
        return read_best_score(out_dir / METRICS)


def train_as_rank(run: "RunConfig", out_dir: Path) -> float:
    """Train as one of the ranks that `main` started."""
    from nlnet.jobs.train import train

    return train(run, out_dir)


if __name__ == "__main__":
    run_tool(main, config="run", doc=__doc__ or "", rank=train_as_rank)
