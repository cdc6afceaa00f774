"""Score trained weights on held-out videos. All views of a video make one score.

Examples:
  python tools/eval.py weights=outputs/i3d_nl5/train/best.pt data.root=/data/kinetics400
  python tools/eval.py weights=best.pt data.test=val.csv data.test_views.num_clips=4
  python tools/eval.py +experiment=caffe2/i3d_nl5_8x8 weights=i3d.pkl data.root=/data/kinetics400

A checkpoint holds the settings of its run (network, clips, views, normalization); the words of the
command line change them. With +experiment=NAME the settings are those of the experiment.
Writes the folder outputs/<name>/eval: metrics.json, predictions.csv with a row for each video, and
scores.npz with the scores of all classes, from which tools/report.py makes a report.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from nlnet.cli.tool import run_tool

if TYPE_CHECKING:
    from nlnet.config import RunConfig
    from nlnet.weights.files import WeightFile


class Evaluation:
    """The tool's work; it reads the weights once, for their settings and for their tensors."""

    def __init__(self) -> None:
        self.weights: WeightFile | None = None

    def base(self, words: list[str]) -> "RunConfig | None":
        """The settings that the words of the command line change."""
        from nlnet.jobs.evaluate import read_base

        self.weights, run = read_base(words)
        return run

    def main(self, run: "RunConfig", out_dir: Path) -> float:
        """Evaluate in this process, or in as many ranks as dist.num_procs says; the main metric."""
        from nlnet.cli.ranks import is_rank, launch_ranks
        from nlnet.config import run_text
        from nlnet.files import write_text
        from nlnet.jobs.evaluate import (
            check_evaluation,
            evaluate_run,
            main_score,
            record_environment,
        )

        check_evaluation(run)
        record_environment(out_dir)
        if is_rank() or run.dist.num_procs == 1:
            return evaluate_run(run, out_dir, self.weights)
        config = out_dir / "config.yaml"
        write_text(config, run_text(run))
        launch_ranks(Path(__file__), config, run.dist.num_procs)
        return main_score(out_dir)


def evaluate_as_rank(run: "RunConfig", out_dir: Path) -> float:
    """Evaluate as one of the ranks that `main` started."""
    from nlnet.jobs.evaluate import evaluate_run

    return evaluate_run(run, out_dir)


if __name__ == "__main__":
    tool = Evaluation()
    run_tool(tool.main, config="run", doc=__doc__ or "", rank=evaluate_as_rank, base=tool.base)
