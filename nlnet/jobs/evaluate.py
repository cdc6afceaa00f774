"""One evaluation: trained weights score all views of the videos of the test split."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from nlnet.checks import one_of
from nlnet.cli.compose import typed_value
from nlnet.cli.dotted_keys import flatten
from nlnet.cli.folders import differences
from nlnet.cli.mistakes import leave_error
from nlnet.config import RunConfig, parse_run, run_text
from nlnet.data.augmentation.build import WHOLE
from nlnet.data.build import build_eval_loader, data_class_names
from nlnet.data.index.video_index import VideoIndex
from nlnet.distributed.build import build_device, build_limits
from nlnet.distributed.ranks import is_main, process_group, rank, world_size
from nlnet.distributed.watch import Watch
from nlnet.errors import UsageError, UserError
from nlnet.files import write_text
from nlnet.jobs.arithmetic import describe_precision
from nlnet.jobs.board import show_evaluation
from nlnet.jobs.partial_evaluation import keep_parts, open_partial, restore
from nlnet.jobs.worker_failures import named_worker_failures
from nlnet.model.build import check_clips
from nlnet.numerics.denormals import flushed_denormals
from nlnet.recognizer.build import build_recognizer, count_classes
from nlnet.recognizer.load import find_settings
from nlnet.runs.ensembles import ENSEMBLES
from nlnet.runs.environment import write_environment
from nlnet.runs.logger import progress_bar
from nlnet.runs.partial import remove_partial
from nlnet.runs.record import METRICS, main_first
from nlnet.runs.scores import SCORES, EvaluationScores, write_scores
from nlnet.trainer.build import apply_allocator, build_cuda_arithmetic, check_labels
from nlnet.trainer.metrics import Metrics, VideoScores
from nlnet.weights.files import WeightFile
from nlnet.weights.load import read_weights
from nlnet.weights.public import locate

# Groups whose choice replaces the settings in the weights.
BASE_GROUPS = ("experiment", "recipe", "optim", "schedule")
TESTING_KEYS = ("data.clip.", "data.target_fps", "data.test_views.")  # how videos are tested
BATCH_SIZE = "data.test_views.batch_size"  # it changes speed and memory only


@flushed_denormals()
def read_base(words: Sequence[str]) -> tuple[WeightFile | None, RunConfig | None]:
    """Read the weights that the words name, and the settings that the words change.

    Returns:
        what the file holds, and the settings that belong to it (those in a checkpoint, or those of
        a public name's preset); None for both if the words name an experiment or no weights
    """
    source = typed_value(words, "weights")
    if source is None or any(typed_value(words, group) for group in BASE_GROUPS):
        return None, None
    weights = read_weights(source)
    return weights, find_settings(source, weights)


def check_evaluation(run: RunConfig) -> None:
    """Raise a UserError for every mistake that can be found before videos are read.

    Weights with a URL or a public name are downloaded here, once, before there are several ranks.
    """
    one_of("data.test_views.ensemble", run.data.test_views.ensemble, ENSEMBLES)
    clip, views = run.data.clip, run.data.test_views
    check_clips(run.model, clip.num_frames, [views.crop_size])
    locate(_weights_of(run))


def record_environment(out_dir: Path) -> None:
    """Write environment.json as rank 0, with the command that the user typed."""
    if os.environ.get("RANK", "0") == "0":
        out_dir.mkdir(parents=True, exist_ok=True)
        write_environment(out_dir)


@flushed_denormals()
def evaluate_run(run: RunConfig, out_dir: Path, weights: WeightFile | None = None) -> float:
    """Score the test split as one of the ranks; rank 0 writes the results and prints a summary.

    Writes metrics.json, scores.npz, predictions.csv, config.yaml and tensorboard/ in `out_dir`.

    Args:
        weights: what the file at `run.weights` holds, if it has been read already

    Returns:
        the main metric, in percent

    Raises:
        UserError: the data, the weights or the settings have a mistake.
    """
    source = _weights_of(run)
    apply_allocator(run.trainer)
    device = build_device(run.dist)
    watch = Watch(out_dir, build_limits(run.dist), leave_error)
    arithmetic = build_cuda_arithmetic(run.trainer)
    with arithmetic, process_group(device, watch), named_worker_failures():
        if weights is None:
            weights = read_weights(source)
        class_names = _find_class_names(run, weights, source)
        recognizer = build_recognizer(run, weights, class_names, device, source=source)
        loader = build_eval_loader(
            run.data,
            run.data.test,
            run.data.test_views,
            rank=rank(),
            world_size=world_size(),
            class_names=class_names,
            pin_memory=device.type == "cuda",
        )
        check_labels(run, run.data.test, loader.index.labels)
        if is_main():
            _print_changes(run, weights, source)
            for remark in [
                *describe_precision(run, device),
                *weights.remarks,
                *_order(weights, class_names, source),
                *loader.index.remarks,
            ]:
                print(remark)
        labels = torch.from_numpy(loader.index.labels)
        scores = VideoScores(labels, len(class_names), recognizer.ensemble, keep_views=True)
        partial = open_partial(run, out_dir, weights, loader, device)
        line = restore(partial, loader, scores)
        if is_main() and line is not None:
            print(line)
        watch.pauses("evaluates")
        batches = keep_parts(progress_bar(loader, run.data.test), scores, partial)
        metrics = recognizer.evaluate(batches, scores)
        if is_main():
            _print_summary(run, out_dir, scores, metrics)  # first: the disk may be full
            _write_results(run, out_dir, scores, loader.index, metrics)
            show_evaluation(out_dir / "tensorboard", _scores_of(run, scores, loader.index))
            remove_partial(out_dir)
        return metrics.score


def _weights_of(run: RunConfig) -> str:
    """The source of the weights; raises UsageError if none is given."""
    if run.weights is None:
        raise UsageError("weights is not set; give weights=PATH, for instance a run's best.pt")
    return run.weights


def _find_class_names(run: RunConfig, weights: WeightFile, source: str) -> tuple[str, ...]:
    """The classes in the weights; those of the data set if the file has no names."""
    count = count_classes(weights, source)
    names = weights.class_names
    if names is None:
        names = list(data_class_names(run.data))
    if count != len(names):
        raise UserError(
            f"{source}: has {count} classes, {run.data.root} has {len(names)}; "
            "give the classes of the weights in a file, data.classes=FILE"
        )
    return tuple(names)


def _order(weights: WeightFile, class_names: Sequence[str], source: str) -> list[str]:
    """A line that says in which order the outputs of a file without class names are taken."""
    if weights.class_names is not None:
        return []
    first = ", ".join([*class_names[:3], *(["..."] if len(class_names) > 3 else [])])
    return [
        f"{source}: names no classes; its outputs are taken in the order of the data set's classes "
        f"({first}); for another order, give the names in a file, data.classes=FILE"
    ]


def _print_changes(run: RunConfig, weights: WeightFile, source: str) -> None:
    """Print how the test differs from the one that the checkpoint's own settings describe."""
    if weights.config is None:
        return
    found, wanted = (
        {
            key: value
            for key, value in flatten(asdict(each)).items()
            if key.startswith(TESTING_KEYS) and key != BATCH_SIZE
        }
        for each in (parse_run(weights.config, source), run)
    )
    changes = differences(found, wanted)
    if changes:
        print(f"the checkpoint's settings, except {', '.join(changes)}")


def _write_results(
    run: RunConfig,
    out_dir: Path,
    scores: VideoScores,
    index: VideoIndex,
    metrics: Metrics,
) -> None:
    """Write config.yaml, scores.npz, metrics.json, and predictions.csv with a row for each video.

    scores.npz is written before metrics.json, so that finished metrics have their scores.
    """
    views = run.data.test_views
    facts = {
        "videos": len(index),
        "unreadable": len(scores.failures),
        "missing": len(index.missing),
        "views": views.num_clips * views.num_crops,
        "protocol": protocol(run),
        "split": run.data.test,
        "weights": run.weights,
    }
    if index.manifest is not None:
        facts["manifest"] = index.manifest.record()
    write_text(out_dir / "config.yaml", run_text(run))
    write_scores(out_dir / SCORES, _scores_of(run, scores, index))
    results = {**metrics.values, "main_metric": metrics.main, **facts}
    write_text(out_dir / METRICS, json.dumps(results, indent=2))
    names = index.class_names
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["video", "label", "prediction", "score", "top5", "views"])
    for row in scores.predictions():
        rows.writerow(
            [
                index.path(row.video_id),
                "|".join(names[k] for k in row.label),
                names[row.top1] if row.num_views else "",
                f"{row.score:.6f}",
                "|".join(names[k] for k in row.top5),
                row.num_views,
            ]
        )
    write_text(out_dir / "predictions.csv", text.getvalue())


def _scores_of(run: RunConfig, scores: VideoScores, index: VideoIndex) -> EvaluationScores:
    """The content of scores.npz."""
    assert scores.views is not None, "the scores of views are kept"
    video_id = scores.views.video_id.numpy()
    number = np.arange(len(video_id)) - np.searchsorted(video_id, video_id)  # of the video's views
    clip, crop = np.divmod(number, run.data.test_views.num_crops)
    return EvaluationScores(
        paths=[str(index.path(i)) for i in range(len(index))],
        class_names=list(index.class_names),
        labels=index.labels if index.labels.ndim == 1 else index.labels > 0,
        ensemble=run.data.test_views.ensemble,
        totals=scores.totals.numpy(),
        views=scores.views.probabilities.numpy(),
        view_video=video_id.astype(np.int32),
        view_clip=clip.astype(np.int16),
        view_crop=crop.astype(np.int16),
        failures=sorted(scores.failures),
    )


def protocol(run: RunConfig) -> str:
    """The views of a video and how their scores are combined, as text."""
    views = run.data.test_views
    crops = f"{views.num_crops} crops of {views.crop_size}"
    if views.crops == WHOLE:
        crops = f"whole frames, short side {views.short_side}"
    return f"{run.data.clip.sampler}: {views.num_clips} clips x {crops}, {views.ensemble} of views"


def _print_summary(run: RunConfig, out_dir: Path, scores: VideoScores, metrics: Metrics) -> None:
    """Print the unreadable videos, the metrics and the file that holds them."""
    for failure in scores.failures:
        print(f"unreadable, counted as wrong: {failure.path}: {failure.cause}")
    path = os.path.relpath(out_dir / METRICS)
    values = main_first(metrics.values, metrics.main)
    numbers = "  ".join(f"{name} {value:.2f}%" for name, value in values.items())
    print(f"{numbers}  ({len(scores.labels)} videos, {protocol(run)}); {path}")


def main_score(out_dir: Path) -> float:
    """The main metric of a finished evaluation, from its metrics.json."""
    metrics = json.loads((out_dir / METRICS).read_text())
    return float(metrics[metrics["main_metric"]])
