"""Read the folders of a run: its evaluation, and the training that it evaluates."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlnet.config import RunConfig, parse_run
from nlnet.data.shards.by_name import is_present
from nlnet.errors import UserError
from nlnet.files import digest
from nlnet.runs.environment import Environment, read_environment
from nlnet.runs.scores import SCORES, EvaluationScores, read_scores

METRICS = "metrics.json"
CONFIG = "config.yaml"
EVALUATIONS = ("", "eval", "../eval")  # relative to the folder that the user names
TRAININGS = ("", "train", "../train")
CLASSIFIERS = ("best.pt", "last.pt")


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation, and what is known about the training before it."""

    folder: Path  # of the evaluation
    scores: EvaluationScores
    metrics: dict[str, Any]  # metrics.json of the evaluation
    config: RunConfig  # of the evaluation
    config_text: str  # its config.yaml
    environment: Environment | None  # None if it was not recorded
    training: dict[str, Any]  # metrics.json of the training; empty if it is not found
    root: Path  # of the data set, as it is found now

    @property
    def videos(self) -> list[str]:
        """The paths of the videos relative to the root of the data set."""
        return [os.path.relpath(path, self.config.data.root) for path in self.scores.paths]

    def file(self, video: int) -> Path:
        """Where the video of a row of the scores is now."""
        found = self.root / self.videos[video]
        return found if is_present(found) else Path(self.scores.paths[video])

    @property
    def main_metric(self) -> str | None:
        """The name of the metric that selects the best checkpoint; None if it was not recorded."""
        return self.metrics.get("main_metric")

    @property
    def unreadable_clips(self) -> tuple[int, int]:
        """The unreadable clips of the training, and how many clips were requested."""
        found = self.training.get("unreadable", {})
        return found.get("clips", 0), found.get("of", 0)

    @property
    def unreadable_files(self) -> list[tuple[str, str, str]]:
        """Unreadable files: path, cause, and whether in the evaluation or in training."""
        files = self.training.get("unreadable", {}).get("files", {})
        return [
            *((path, cause, "evaluation") for path, cause in self.scores.failures),
            *((path, cause, "training") for path, cause in files.items()),
        ]

    @property
    def videos_digest(self) -> str:
        """The SHA-256 of the sorted list of `path<TAB>labels`; it does not depend on the root."""
        lines = []
        for video, label in zip(self.videos, self.scores.labels, strict=True):
            labels = [int(label)] if label.ndim == 0 else label.nonzero()[0].tolist()
            names = ",".join(self.scores.class_names[k] for k in labels)
            lines.append(f"{video}\t{names}\n")
        return digest("".join(sorted(lines)).encode(errors="surrogateescape"))


def find_beside(path: Path, folder: Path) -> Path:
    """Find a path of a config: a relative one belongs to the folder that the tool was started in.

    This folder is not recorded. By default, it is above the folder of the run: the nearest folder
    above that has the path is taken, else the path stays as it is.
    """
    above = folder.absolute().parents
    return next((place / path for place in above if (place / path).exists()), path)


def read_run_folder(folder: Path, data_root: Path | None = None) -> EvaluatedRun:
    """Read an evaluated run.

    Args:
        folder: of the evaluation, of the training beside it, or the folder that holds both
        data_root: where the data set is now; None is the root in the config

    Raises:
        UserError: the folder has no evaluation (the message names the command that makes it), or a
            file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder; name the folder of a run")
    for place in EVALUATIONS:
        evaluation = Path(os.path.normpath(folder / place))
        if (evaluation / SCORES).exists():
            break
    else:
        raise UserError(
            f"{folder}: has no evaluation ({SCORES}); make it with: {_evaluation_command(folder)}"
        )
    metrics = read_json(evaluation / METRICS)
    config_text = read_run_text(evaluation / CONFIG)
    config = parse_run(config_text, str(evaluation / CONFIG))
    root = find_beside(Path(config.data.root), evaluation) if data_root is None else data_root
    return EvaluatedRun(
        folder=evaluation,
        scores=read_scores(evaluation / SCORES),
        metrics=metrics,
        config=config,
        config_text=config_text,
        environment=read_environment(evaluation),
        training=_training(folder, metrics),
        root=root,
    )


def _evaluation_command(folder: Path) -> str:
    """Return the command that evaluates the run in a folder, as far as its files tell it."""
    for place in TRAININGS:
        training = Path(os.path.normpath(folder / place))
        if (training / CONFIG).exists():
            name = parse_run(read_run_text(training / CONFIG), str(training / CONFIG)).name
            found = [training / file for file in CLASSIFIERS if (training / file).exists()]
            weights = found[0] if found else training / CLASSIFIERS[0]
            return f"python tools/eval.py weights={weights} name={name}"
    return "python tools/eval.py weights=PATH"


def _training(folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics.json of the training whose weights were evaluated; empty if it is not found."""
    places = [Path(os.path.normpath(folder / place)) for place in TRAININGS]
    weights = metrics.get("weights")
    if weights is not None:
        places.insert(0, find_beside(Path(weights), folder).parent)
    for place in places:
        if (place / METRICS).exists():
            found = read_json(place / METRICS)
            if "epochs" in found:
                return found
    return {}


def read_run_text(path: Path) -> str:
    """Read a text file of a run; raises UserError if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run tools/eval.py again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run; raises UserError if it cannot be read or holds no mapping."""
    text = read_run_text(path)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{path}: is not JSON ({error}); run the command of its run again"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no metrics; run the command of its run again")
    return found
