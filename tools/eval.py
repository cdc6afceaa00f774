"""Score trained weights on held-out videos: all views of each video make one score.

Examples:
  python tools/eval.py +experiment=i3d_nl5 weights=outputs/i3d_nl5/train/best.pt
  python tools/eval.py +experiment=i3d_nl5 weights=best.pt data.test=val.csv dist.num_procs=2
  python tools/eval.py +experiment=folder model=i3d_tiny data.root=my_videos weights=best.pt \\
      data.test_views.num_clips=4 data.test_views.num_crops=1

Writes outputs/<name>/eval: metrics.json, and predictions.csv with a row for each video.
"""

import csv
import json
import os
import sys
from functools import partial
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nlnet.checks import one_of
from nlnet.cli.folders import network_differences
from nlnet.cli.tool import RESOLVED, is_rank, launch_ranks, run_tool, to_run
from nlnet.config import RunConfig, parse_run, register_schemas, run_text
from nlnet.data.build import build_eval_loader, data_class_names
from nlnet.data.index.video_index import VideoIndex
from nlnet.distributed.ranks import is_main, pick_device, process_group, rank, world_size
from nlnet.errors import UsageError, UserError
from nlnet.files import write_atomic
from nlnet.model.build import build_model
from nlnet.model.classifier import VideoClassifier
from nlnet.model.cost import check_clips
from nlnet.model.speed.folding import fold_norms
from nlnet.runs.logger import METRICS, progress_bar
from nlnet.trainer.allocator import set_allocator
from nlnet.trainer.build import build_precision, check_labels
from nlnet.trainer.loop import evaluate
from nlnet.trainer.metrics import ENSEMBLES, VideoScores
from nlnet.weights.files import WeightFile, read_weight_file
from nlnet.weights.load import load_weights
from nlnet.weights.public import locate


def evaluate_run(run: RunConfig, out_dir: Path) -> float:
    """Score the test split as one of the ranks; rank 0 writes and tells. Returns the main score."""
    set_allocator(run.trainer.allocator)
    device = pick_device(run.dist.device)
    with process_group(device):
        model, class_names = trained_model(run)
        if run.trainer.fold_norms:
            model = fold_norms(model)
        model.to(device)
        if run.trainer.channels_last:
            model.to(memory_format=torch.channels_last_3d)
        views = run.data.test_views
        loader = build_eval_loader(
            run.data,
            run.data.test,
            views,
            rank=rank(),
            world_size=world_size(),
            class_names=class_names,
            pin_memory=device.type == "cuda",
        )
        check_labels(run, run.data.test, loader.index.labels)
        labels = torch.from_numpy(loader.index.labels)
        scores = VideoScores(labels, len(class_names), views.ensemble)
        metrics = evaluate(
            model,
            progress_bar(loader, run.data.test),
            scores,
            device=device,
            chunk=views.batch_size,
            precision=build_precision(run.trainer, device),
            channels_last=run.trainer.channels_last,
        )
        if is_main():
            write_results(run, out_dir, scores, loader.index, metrics)
        return next(iter(metrics.values()))


def weights_of(run: RunConfig) -> str:
    if run.weights is None:
        raise UsageError("weights is not set; give weights=PATH, for instance a run's best.pt")
    return run.weights


def trained_model(run: RunConfig) -> tuple[VideoClassifier, tuple[str, ...]]:
    """The network of the weights, and the classes that it tells apart.

    Raises UserError where the run's network is not the one that was trained.
    """
    weights = weights_of(run)
    file = read_weight_file(locate(weights))
    class_names = classes_of(weights, file, run)
    model = build_model(run.model, len(class_names))
    report = load_weights(model, weights)
    if report.new or report.inflated:
        raise UserError(f"{report.summary()}: another network; give the experiment it came from")
    changes = [] if file.config is None else network_differences(file.config, run.model)
    if changes:
        raise UserError(
            f"{weights}: was trained as another network ({', '.join(changes)}); give the "
            "experiment and the words it came from"
        )
    return model, class_names


def classes_of(weights: str, file: WeightFile, run: RunConfig) -> tuple[str, ...]:
    """The classes that the weights tell apart; the data set's where the file has no names."""
    if "head.fc.weight" not in file.state:
        raise UserError(f"{weights}: has no classifier; train one first with weights={weights}")
    names = file.class_names
    if names is None:
        names = list(data_class_names(run.data))
    count = len(file.state["head.fc.weight"])
    if count != len(names):
        raise UserError(
            f"{weights}: tells {count} classes apart, {run.data.root} has {len(names)}; "
            "give the classes of the weights in a file, data.classes=FILE"
        )
    return tuple(names)


def write_results(
    run: RunConfig,
    out_dir: Path,
    scores: VideoScores,
    index: VideoIndex,
    metrics: dict[str, float],
) -> None:
    """metrics.json, predictions.csv, and a summary on the screen."""
    views = run.data.test_views
    facts = {
        "videos": len(index),
        "unreadable": len(scores.failures),
        "missing": len(index.missing),
        "views": views.num_clips * views.num_crops,
        "protocol": f"{run.data.clip.sampler}: {views.num_clips} clips x {views.num_crops} crops "
        f"of {views.crop_size}, {views.ensemble} of views",
        "split": run.data.test,
        "weights": run.weights,
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "config.yaml").write_text(run_text(run))
    write_atomic(out_dir / METRICS, json.dumps({**metrics, **facts}, indent=2).encode())
    names = index.class_names
    with (out_dir / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
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
    for failure in scores.failures:
        print(f"unreadable, counted as wrong: {failure.path}: {failure.cause}")
    path = os.path.relpath(out_dir / METRICS)
    numbers = "  ".join(f"{name} {value:.2f}%" for name, value in metrics.items())
    print(f"{numbers}  ({len(index)} videos, {facts['protocol']}); {path}")


@hydra.main(version_base="1.3", config_path="../configs", config_name="run")
def main(cfg: DictConfig) -> float:
    run: RunConfig = to_run(cfg)
    out_dir = Path(HydraConfig.get().runtime.output_dir)
    one_of("data.test_views.ensemble", run.data.test_views.ensemble, ENSEMBLES)
    clip, views = run.data.clip, run.data.test_views
    check_clips(partial(build_model, run.model, num_classes=2), clip.num_frames, [views.crop_size])
    locate(weights_of(run))  # downloaded once, before there are ranks
    if is_rank() or run.dist.num_procs == 1:
        return evaluate_run(run, out_dir)
    config = out_dir / "config.yaml"
    config.write_text(run_text(run))
    launch_ranks(Path(__file__), config, run.dist.num_procs)
    metrics = json.loads((out_dir / METRICS).read_text())
    return next(iter(metrics.values()))


if __name__ == "__main__":
    register_schemas()
    if sys.argv[1:2] == [RESOLVED]:
        path = Path(sys.argv[2])
        run_tool(lambda: evaluate_run(parse_run(path.read_text(), str(path)), path.parent))
    else:
        run_tool(main, __doc__)
