"""The pictures of an evaluation in TensorBoard: the confusion matrix and wrong videos."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nlnet.data.decoding.reader import DecodeError
from nlnet.report.analysis import Case, wrong_cases
from nlnet.report.board_pictures import confusion_picture, strip_picture
from nlnet.report.classes import confusion_of
from nlnet.report.previews import spread_frames
from nlnet.runs.logger import RunLogger, write_pictures
from nlnet.runs.scores import EvaluationScores
from nlnet.trainer.metrics import VideoScores

CASES = 4  # worst videos, and as many confident wrong ones
FRAMES = 8  # of a video


def show_evaluation(folder: Path, scores: EvaluationScores) -> None:
    """Write TensorBoard events with the pictures; they replace those of an earlier evaluation.

    Videos with several labels have no confusion matrix. A video that cannot be read has no picture.

    Raises UserError if the folder cannot be written.
    """
    pictures = dict(_wrong_videos(scores))
    if scores.labels.ndim == 1:
        matrix = confusion_of(scores.totals, scores.labels, scores.num_views > 0)
        pictures["confusion"] = confusion_picture(matrix, scores.class_names)
    write_pictures(folder, pictures)


def show_validation(
    logger: RunLogger, scores: VideoScores, names: Sequence[str], step: int
) -> None:
    """Show the confusion matrix of a validation at a step of the training."""
    labels = scores.labels.numpy()
    if labels.ndim == 1:
        matrix = confusion_of(scores.totals.numpy(), labels, scores.num_views.numpy() > 0)
        logger.picture("val/confusion", confusion_picture(matrix, names), step)


def _wrong_videos(scores: EvaluationScores) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pictures of wrong videos: frames of the whole video below the classes."""
    for kind, cases in zip(("worst", "confident"), wrong_cases(scores, CASES), strict=True):
        for i, case in enumerate(cases):
            path = Path(scores.paths[case.video])
            try:
                frames = spread_frames(path, FRAMES)
            except (DecodeError, OSError):
                continue
            yield f"wrong/{kind}_{i}", strip_picture(frames, _caption(scores, case, path))


def _caption(scores: EvaluationScores, case: Case, path: Path) -> list[str]:
    labels = ", ".join(scores.class_names[k] for k in case.labels) or "no label"
    best, score = case.best[0]
    found = f"{scores.class_names[best]} {100 * score:.1f} %"
    return [f"{labels} {100 * case.label_score:.1f} %, taken for {found}", path.name]
