"""The model card of an exported network: what it is, how it was tested, and how to use it."""

from pathlib import Path
from typing import Any, NamedTuple

from nlnet.config import ResNetConfig, RunConfig
from nlnet.report.analysis import TITLES, analyze
from nlnet.report.runs import EVALUATIONS, METRICS, TRAININGS, read_json, read_run_folder
from nlnet.report.statistics import Interval
from nlnet.runs.environment import read_environment
from nlnet.runs.record import main_first
from nlnet.runs.scores import SCORES

BEST = "best.pt"
SHOWN_CLASSES = 20  # in the card; config.json has all


class Accuracy(NamedTuple):
    """Results of a checkpoint. Values are shares from 0 to 1."""

    metrics: dict[str, Interval]  # low and high are NaN if they are not known
    about: str  # which videos and views
    known: bool  # whether there are intervals


class Origin(NamedTuple):
    """Where the weights come from."""

    source: str  # as the user named it
    checkpoint: Path | None  # the file; None for public weights and folders
    started_from: str | None  # the weights that the training started from
    license: str | None  # an identifier, or text; None if it is not known
    sources: list[str]  # sentences about the licenses of public weights


def find_accuracy(checkpoint: Path) -> Accuracy | None:
    """The results beside a checkpoint: of its evaluation, or else of the best epoch's validation.

    An evaluation of another file of weights is not used. Raises UserError if a file is damaged.
    """
    folder = checkpoint.parent
    for place in EVALUATIONS:
        evaluation = (folder / place).resolve()
        if not (evaluation / SCORES).exists():
            continue
        run = read_run_folder(evaluation)
        if not _is_same(run.metrics.get("weights"), checkpoint):
            continue
        split, protocol = run.metrics.get("split", "test"), run.metrics.get("protocol", "")
        about = f"{len(run.scores.paths)} videos of the split `{split}`; {protocol}"
        metrics = analyze(run.scores, run.main_metric).metrics
        return Accuracy(metrics, about, known=True)
    if checkpoint.name == BEST and (folder / METRICS).exists():
        found = read_json(folder / METRICS)
        metrics = {
            name: Interval(found[f"best_{name}"] / 100, float("nan"), float("nan"))
            for name in main_first(TITLES, found.get("main_metric"))
            if f"best_{name}" in found
        }
        if metrics:
            about = (
                f"validation after epoch {found.get('best_epoch')}, the best one of the training"
            )
            return Accuracy(metrics, about, known=False)
    return None


def model_card(
    run: RunConfig, facts: dict[str, Any], origin: Origin, accuracy: Accuracy | None
) -> str:
    """The text of README.md, with the header that model hubs read.

    Args:
        run: the settings of the network
        facts: what config.json holds
        origin: of the weights
        accuracy: None if it is not known
    """
    names, clip = facts["class_names"], facts["clip"]
    normalization = facts["normalization"]
    shown = ", ".join(names[:SHOWN_CLASSES]) + (", ..." if len(names) > SHOWN_CLASSES else "")
    lines = [
        *_header(origin),
        f"# {run.name}",
        "",
        f"A network of nlnet {facts['nlnet']} that recognizes actions in videos: {_network(run)}.",
        "",
        "## Use",
        "",
        "```python",
        "# pip install nlnet",
        "import nlnet",
        "",
        'recognizer = nlnet.load("FOLDER")  # the folder of this file',
        'recognizer.scores("video.mp4")  # probabilities, in the order of recognizer.class_names',
        "```",
        "",
        "## Data",
        "",
        f"- Data set: {Path(run.data.root).name or run.data.root}, split `{run.data.train}`.",
        f"- {len(names)} classes: {shown}",
        *([f"- The training started from {origin.started_from}."] if origin.started_from else []),
        "",
        "## Protocol",
        "",
        f"- Clips: {clip['num_frames']}x{clip['frame_stride']} (frames x distance in frames), "
        f"sampler `{clip['sampler']}`; RGB pixels as uint8, "
        f"(batch, 3, {', '.join(str(size) for size in facts['input']['shape'][2:])}).",
        f"- Normalization, inside the network: `{normalization['name']}`, mean "
        f"{normalization['mean']}, std {normalization['std']} of RGB from 0 to 1.",
        f"- Test: {facts['protocol']}; frames are resized to a short side of "
        f"{facts['views']['short_side']} pixels first.",
        f"- Probabilities: {run.model.activation}.",
        "",
        "## Accuracy",
        "",
        *_accuracy(accuracy, origin),
        "",
        "## License",
        "",
        *_license(origin),
        "",
        *_command(origin),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _is_same(weights: str | None, checkpoint: Path) -> bool:
    """Whether an evaluation's path of weights, absolute or relative, is that of the checkpoint."""
    if weights is None:
        return False
    path = Path(weights)
    resolved = checkpoint.resolve()
    if path.is_absolute():
        return path.resolve() == resolved
    return resolved.parts[-len(path.parts) :] == path.parts or path.resolve() == resolved


def _header(origin: Origin) -> list[str]:
    """YAML that hubs read; their licenses are identifiers such as apache-2.0."""
    license = (origin.license or "unknown").strip()
    if license.lower().replace(".", "").replace("-", "").isalnum():
        licenses = [f"license: {license.lower()}"]
    else:
        licenses = ["license: other", f'license_name: "{license}"']
    return [
        "---",
        "library_name: nlnet",
        "pipeline_tag: video-classification",
        *licenses,
        "tags: [video-classification, action-recognition, non-local-networks]",
        "---",
        "",
    ]


def _network(run: RunConfig) -> str:
    model, blocks = run.model, run.model.non_local
    name = f"a ResNet-{model.depth}" if isinstance(model, ResNetConfig) else "a network"
    count = sum(len(stage) for stage in (blocks.res2, blocks.res3, blocks.res4, blocks.res5))
    if not count:
        return f"{name} without non-local blocks"
    kind = blocks.pairwise if blocks.block == "non_local" else blocks.block
    return f"{name} with {count} non-local block{'s' * (count > 1)} ({kind}, {blocks.axes})"


def _accuracy(accuracy: Accuracy | None, origin: Origin) -> list[str]:
    if accuracy is None:
        return [
            "No evaluation was found beside the checkpoint. This command makes one: "
            f"`python tools/eval.py weights={origin.source}`"
        ]
    head, rows = ["| metric | value |", "|---|---|"], []
    if accuracy.known:
        head = ["| metric | value | 95 % interval |", "|---|---|---|"]
    for name, found in accuracy.metrics.items():
        value, low, high = (f"{100 * number:.2f} %" for number in found)
        interval = f" {low} to {high} |" if accuracy.known else ""
        rows.append(f"| {TITLES[name]} | {value} |{interval}")
    note = f"Measured on {accuracy.about}." if accuracy.known else f"From the {accuracy.about}."
    extra = "The intervals are those of a bootstrap over the videos." if accuracy.known else ""
    return [*head, *rows, "", f"{note} {extra}".rstrip()]


def _license(origin: Origin) -> list[str]:
    weights = origin.license or "not stated; set it with `tools/export.py --license NAME`"
    return [f"Weights: {weights}. nlnet itself: Apache-2.0.", *origin.sources]


def _command(origin: Origin) -> list[str]:
    """How the network was trained, if the folder of the run tells it."""
    if origin.checkpoint is None:
        return []
    for place in TRAININGS:
        environment = read_environment((origin.checkpoint.parent / place).resolve())
        if environment is not None:
            versions = f"nlnet {environment.nlnet}, torch {environment.torch}, {environment.device}"
            return [
                *("## Command", "", "```bash", environment.command, "```", ""),
                f"{environment.date}; {versions}; the whole configuration is in config.json.",
            ]
    return ["## Command", "", "The whole configuration of the training is in config.json (`run`)."]
