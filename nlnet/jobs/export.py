"""Export trained weights: as a graph for another runtime, or as a folder for a model hub."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import nlnet
from nlnet.checks import one_of
from nlnet.config import parse_run, run_text
from nlnet.errors import UserError
from nlnet.files import write_atomic
from nlnet.jobs.evaluate import protocol
from nlnet.model.build import check_clips
from nlnet.model.classifier import NORMALIZATIONS, VideoClassifier
from nlnet.numerics.denormals import flushed_denormals
from nlnet.recognizer.build import trained_model
from nlnet.recognizer.export_graph import (
    BATCHES,
    INPUT,
    OUTPUTS,
    TOLERANCE,
    Export,
    export_onnx,
    export_torch,
)
from nlnet.recognizer.load import Trained, read_trained
from nlnet.report.card import Origin, find_accuracy, model_card
from nlnet.weights.folder import check_target, write_folder
from nlnet.weights.public import public_name, split_word
from nlnet.weights.sources.all import CODE_BASES, FORMATS


class _Graph(NamedTuple):
    """A format of one file that contains the computation of the network."""

    suffix: str
    export: Callable[[VideoClassifier, tuple[int, int, int], str], Export]


FOLDER = "safetensors"
GRAPHS = {"onnx": _Graph(".onnx", export_onnx), "torch_export": _Graph(".pt2", export_torch)}
TARGETS = (*GRAPHS, FOLDER)


@flushed_denormals()
def export(
    source: str,
    to: str,
    *,
    out: Path | None = None,
    experiment: str | None = None,
    license: str | None = None,
) -> Path:
    """Export a trained network, and print what was written.

    Args:
        source: a checkpoint, a public name, or another source of `nlnet.load`
        to: a name in TARGETS
        out: the file or folder; None: beside the checkpoint, with the name of the checkpoint
        experiment: the settings of a file that has none
        license: of the weights, for the model card

    Returns:
        the file or folder

    Raises:
        UserError: the source cannot be read, a package is missing, the exported network differs
            from the network, or the output cannot be written. Then there is no output.
    """
    one_of("--to", to, dict.fromkeys(TARGETS))
    out = default_target(source, to) if out is None else out
    if to == FOLDER:
        check_target(out)
    elif out.is_dir():
        raise UserError(f"{out}: is a folder; name a file with --out")
    elif not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder; make it, or name another file with --out")
    trained = read_trained(source, experiment)
    model = trained_model(trained.run, trained.weights, len(trained.class_names), source).eval()
    facts = _describe(trained)
    if to == FOLDER:
        origin = _find_origin(source, trained, license)
        accuracy = None if origin.checkpoint is None else find_accuracy(origin.checkpoint)
        if accuracy is not None and accuracy.known:
            facts["accuracy"] = {name: v._asdict() for name, v in accuracy.metrics.items()}
        card = model_card(trained.run, facts, origin, accuracy)
        write_folder(out, model.state_dict(), facts, card)
        print(f"{out}: model.safetensors, config.json, README.md")
        return out
    clip, crop = trained.run.data.clip.num_frames, trained.run.data.test_views.crop_size
    check_clips(trained.run.model, clip, [crop])
    exported = GRAPHS[to].export(model, (clip, crop, crop), json.dumps(facts, indent=2))
    write_atomic(out, exported.data)
    print(
        f"{out}: {INPUT} (batch, 3, {clip}, {crop}, {crop}) uint8 -> {', '.join(OUTPUTS)}; largest "
        f"difference to the network on {len(BATCHES)} inputs: {exported.difference:.1e} "
        f"(limit {TOLERANCE:.0e})"
    )
    return out


def default_target(source: str, to: str) -> Path:
    """The output beside a file or folder, or in this folder for other sources."""
    path = Path(split_word(source)[0])
    place = path if path.exists() else Path(path.name)
    if not path.is_dir():
        place = place.with_suffix("")
    return place.with_name(place.name + (f"_{FOLDER}" if to == FOLDER else GRAPHS[to].suffix))


def _describe(trained: Trained) -> dict[str, Any]:
    """The JSON values of config.json: classes, input, normalization, protocol, configuration."""
    run = trained.run
    views, clip = run.data.test_views, run.data.clip
    mean, std = NORMALIZATIONS[run.model.normalization]
    shape = ["batch", 3, clip.num_frames, views.crop_size, views.crop_size]
    return {
        "nlnet": nlnet.__version__,
        "name": run.name,
        "class_names": list(trained.class_names),
        "input": {"name": INPUT, "dtype": "uint8", "color": "RGB", "shape": shape},
        "outputs": list(OUTPUTS),
        "clip": asdict(clip),
        "views": asdict(views),
        "protocol": protocol(run),
        "normalization": {
            "name": run.model.normalization,
            "mean": list(mean),
            "std": list(std),
            "inside_network": True,
        },
        "activation": run.model.activation,
        # The text of a checkpoint is kept; its settings of the training machine are not used.
        "run": trained.weights.config or run_text(run),
    }


def _find_origin(source: str, trained: Trained, license: str | None) -> Origin:
    """Where the weights come from, and under which license, as far as it is known."""
    weights, started_from, sources = trained.weights, None, []
    if weights.config is not None:
        started_from = parse_run(weights.config, source).weights
    if started_from is not None and (name := public_name(started_from)) is not None:
        publisher = CODE_BASES[name.partition("/")[0]].publisher
        sources.append(f"The weights that the training started from: {publisher.license}.")
    if weights.form is not None and license is None:
        license = CODE_BASES[FORMATS[weights.form].code_base].publisher.license
    checkpoint = Path(source) if Path(source).is_file() else None
    return Origin(source, checkpoint, started_from, license, sources)
