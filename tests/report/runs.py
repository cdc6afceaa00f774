"""What the tests of reports share: folders of evaluated runs whose scores are made up."""

import json
from pathlib import Path

import numpy as np

from nlnet.clip import Failure
from nlnet.config import run_text
from nlnet.report.statistics import hits, mean_average_precision, mean_class
from nlnet.runs.environment import write_environment
from nlnet.runs.scores import EvaluationScores, write_scores
from tests.cli.commands import run_config

CLASSES = ["caret", "<b>swipe</b>", "delete & x", "étoile", "square", "swipe_up"]
UNREADABLE = 3  # the row of the video that could not be read


def made_up_scores(
    root: Path, seed: int = 0, *, videos: int = 20, several: bool = False
) -> EvaluationScores:
    """Scores of 2 clips x 3 crops that are right more often than not; one unreadable video."""
    rng = np.random.default_rng(seed)
    labels = np.arange(videos) % (len(CLASSES) - 1)  # the last class has no video
    readable = np.flatnonzero(np.arange(videos) != UNREADABLE)
    logits = rng.normal(size=(len(readable), 2, 3, len(CLASSES)))
    logits += 0.6 * np.eye(len(CLASSES))[labels[readable]][:, None, None]
    views = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    totals = np.zeros((videos, len(CLASSES)))
    totals[readable] = views.sum((1, 2))
    paths = [str(root / "val" / f"{i:03d}.mp4") for i in range(videos)]
    one_hot = np.eye(len(CLASSES), dtype=bool)[labels]
    return EvaluationScores(
        paths=paths,
        class_names=CLASSES,
        labels=one_hot | np.roll(one_hot, 1, axis=0) if several else labels,
        ensemble="mean",
        totals=totals,
        views=views.reshape(-1, len(CLASSES)).astype(np.float16),
        view_video=np.repeat(readable, 6).astype(np.int32),
        view_clip=np.tile(np.repeat([0, 1], 3), len(readable)).astype(np.int16),
        view_crop=np.tile([0, 1, 2], 2 * len(readable)).astype(np.int16),
        failures=[Failure(paths[UNREADABLE], "moov atom <not> found")],
    )


def metrics_of(scores: EvaluationScores) -> dict[str, float]:
    """The metrics in percent."""
    has_views, ones = scores.num_views > 0, np.ones((1, len(scores.paths)))
    if scores.labels.ndim == 2:
        metric = mean_average_precision(scores.probabilities, scores.labels)
        return {"mean_ap": 100 * float(metric(ones)[0])}
    top1 = hits(scores.totals, scores.labels, 1, has_views)
    return {
        "top1": 100 * float(top1.mean()),
        "top5": 100 * float(hits(scores.totals, scores.labels, 5, has_views).mean()),
        "mean_class": 100 * float(mean_class(top1, scores.labels)(ones)[0]),
    }


def evaluated_run(
    folder: Path, root: Path, scores: EvaluationScores, name: str, main: str | None = None
) -> Path:
    """Write the folders of a training and of its evaluation; returns the folder above both."""
    evaluation, training = folder / "eval", folder / "train"
    evaluation.mkdir(parents=True)
    training.mkdir()
    config = run_text(run_config(f"name={name}", f"data.root={root}"))
    for path in (evaluation, training):
        (path / "config.yaml").write_text(config)
    metrics = metrics_of(scores)
    facts = {
        "main_metric": main or next(iter(metrics)),
        "videos": len(scores.paths),
        "unreadable": len(scores.failures),
        "missing": 2,
        "views": 6,
        "protocol": "dense: 2 clips x 3 crops of 48, mean of views",
        "split": "val",
        "weights": str(training / "best.pt"),
    }
    (evaluation / "metrics.json").write_text(json.dumps({**metrics, **facts}))
    write_scores(evaluation / "scores.npz", scores)
    write_environment(evaluation)
    epochs = [
        {"epoch": i + 1, "train": {"loss": 2.0 - i, "top1": 30.0}, "val": {"top1": 20.0 + i}}
        for i in range(2)
    ]
    unreadable = {"clips": 1, "of": 64, "files": {"train/bad.mp4": "no video stream"}}
    history = {"unreadable": unreadable, "missing": {"train": 3, "val": 0}, "epochs": epochs}
    (training / "metrics.json").write_text(json.dumps(history))
    return folder
