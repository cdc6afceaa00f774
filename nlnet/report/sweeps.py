"""Find the runs of a sweep, and recognize each as a row of one of the paper's tables."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nlnet.cli.dotted_keys import flatten
from nlnet.cli.folders import FREE_KEYS, differences
from nlnet.config import ResNetConfig, RunConfig, parse_run
from nlnet.errors import UserError
from nlnet.report.runs import CONFIG, METRICS, read_json, read_run_text

STAGES = ("res2", "res3", "res4", "res5")
# Keys in which the runs of one row may differ.
FREE = (*FREE_KEYS, "seed", "name", "weights", "data.test_views", "data.test", "data.allow_bad")


@dataclass(frozen=True)
class RunAccuracy:
    """The accuracy of one run, in percent."""

    folder: Path
    run: RunConfig
    top1: float
    top5: float
    protocol: str
    evaluated: bool  # by tools/eval.py, else by the validation after the best epoch

    @property
    def depth(self) -> int:
        """The depth of the ResNet."""
        assert isinstance(self.run.model, ResNetConfig)
        return self.run.model.depth


def find_results(folders: Iterable[Path]) -> list[RunAccuracy]:
    """Read all finished runs of ResNets below the folders.

    A run that was evaluated by tools/eval.py counts with this evaluation, not with its training.

    Raises UserError if a folder does not exist or a file is damaged.
    """
    results = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: is not a folder; name the folder of a sweep")
        for path in sorted(folder.rglob(CONFIG)):
            if (path.parent / METRICS).exists():
                result = _read_result(path.parent)
                results += [] if result is None else [result]
    evaluated = [result for result in results if result.evaluated]
    return [
        result
        for result in results
        if result.evaluated or not any(_is_evaluation_of(other, result) for other in evaluated)
    ]


def _read_result(folder: Path) -> RunAccuracy | None:
    """The result of a run; None for other networks, other metrics and unfinished runs."""
    run = parse_run(read_run_text(folder / CONFIG), str(folder / CONFIG))
    metrics = read_json(folder / METRICS)
    if not isinstance(run.model, ResNetConfig):
        return None
    if "protocol" in metrics and "top1" in metrics:
        found = metrics["top1"], metrics["top5"], metrics["protocol"]
    elif "best_top1" in metrics:
        views = run.data.val_views
        main = metrics.get("main_metric", "top1")
        best = "best epoch" if main == "top1" else f"best epoch by {main}"
        protocol = f"{best}, {views.num_clips * views.num_crops} view(s) of {views.crop_size}"
        found = metrics["best_top1"], metrics["best_top5"], protocol
    else:
        return None
    return RunAccuracy(folder, run, *found, evaluated="protocol" in metrics)


def _is_evaluation_of(evaluation: RunAccuracy, training: RunAccuracy) -> bool:
    weights = evaluation.run.weights
    if weights is not None and Path(weights).parent.resolve() == training.folder.resolve():
        return True
    free = tuple(key for key in FREE if key != "seed")
    return not differences(settings(training.run), settings(evaluation.run), free=free)


def settings(run: RunConfig) -> dict[str, Any]:
    """The config of a run as dotted keys."""
    return flatten(asdict(run))


def require_one_setting(results: list[RunAccuracy], row: str) -> None:
    """Raise UserError if runs of one row differ in more than their seeds."""
    for other in results[1:]:
        changes = differences(settings(results[0].run), settings(other.run), free=FREE)
        if changes:
            raise UserError(
                f"{results[0].folder} and {other.folder} are both {row} but differ "
                f"({', '.join(changes)}); give a folder with one of them"
            )


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation; NaN for the latter of one value."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _count_blocks(run: RunConfig) -> dict[str, int]:
    """The number of non-local blocks of each stage that has some."""
    non_local = run.model.non_local
    places = dict(
        zip(STAGES, (non_local.res2, non_local.res3, non_local.res4, non_local.res5), strict=True)
    )
    return {stage: len(blocks) for stage, blocks in places.items() if blocks}


def _family(run: RunConfig) -> str:
    """c2d, i3d (3x1x1) or i3d_3x3x3."""
    assert isinstance(run.model, ResNetConfig)
    kernels = asdict(run.model.temporal_kernels).values()
    if all(kernel == 1 for stage in kernels for kernel in stage):
        return "c2d"
    return "i3d" if run.model.inflate_conv == "a" else "i3d_3x3x3"


def _pairwise(run: RunConfig) -> str | None:
    non_local = run.model.non_local
    if _family(run) != "c2d":
        return None
    if not _count_blocks(run):
        return "none"
    return non_local.pairwise if non_local.block == "non_local" else non_local.block


def _stage(run: RunConfig) -> str | None:
    stages = list(_count_blocks(run))
    if len(stages) > 1 or _family(run) != "c2d":
        return None
    return stages[0] if stages else "none"


def _count(run: RunConfig) -> str | None:
    return str(sum(_count_blocks(run).values())) if _family(run) == "c2d" else None


def _axes(run: RunConfig) -> str | None:
    if _family(run) != "c2d":
        return None
    return run.model.non_local.axes if _count_blocks(run) else "none"


def _family_and_blocks(run: RunConfig) -> str | None:
    return f"{_family(run)}_nl" if _count_blocks(run) else _family(run)


# The row of a table that a run belongs to; None if it is none.
ROW_OF: dict[str, Callable[[RunConfig], str | None]] = {
    "2a": _pairwise,
    "2b": _stage,
    "2c": _count,
    "2d": _axes,
    "2e": _family_and_blocks,
    "2f": _family_and_blocks,
    "2g": _family_and_blocks,
}
