"""A checkpoint, a public name, a file of another code base or a URL -> a Recognizer."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from nlnet.checks import section
from nlnet.cli.choices import choices
from nlnet.cli.compose import compose_run
from nlnet.config import DistConfig, RunConfig, parse_run
from nlnet.distributed.ranks import pick_device
from nlnet.errors import UserError
from nlnet.recognizer.build import build_recognizer, count_classes
from nlnet.recognizer.recognizer import Recognizer
from nlnet.weights.files import WeightFile
from nlnet.weights.load import read_weights
from nlnet.weights.public import public_name


class Trained(NamedTuple):
    """What a file of trained weights holds, and the settings that belong to it."""

    weights: WeightFile
    run: RunConfig
    class_names: tuple[str, ...]


def load_recognizer(
    source: str | Path, *, experiment: str | None = None, device: str = "auto"
) -> Recognizer:
    """Load a trained network; `nlnet.load` describes the arguments and errors."""
    source = str(source)
    with section(""):
        place = pick_device(device)
    weights, run, names = read_trained(source, experiment)
    return build_recognizer(run, weights, names, place, source=source)


def read_trained(source: str, experiment: str | None = None) -> Trained:
    """Read a file of weights; the arguments and errors are those of `nlnet.load`."""
    weights = read_weights(source)
    for remark in weights.remarks:
        print(remark, file=sys.stderr)
    run = find_settings(source, weights) if experiment is None else compose_run(experiment)
    if run is None:
        raise UserError(
            f"{source}: holds no settings of its network; name the experiment that describes it, "
            'for instance nlnet.load(..., experiment="caffe2/i3d_nl5_8x8")'
        )
    count = count_classes(weights, source)
    names = weights.class_names or [str(k) for k in range(count)]
    return Trained(weights, run, tuple(names))


def find_settings(source: str, weights: WeightFile) -> RunConfig | None:
    """The settings in a checkpoint, or of a public name's preset; None if the file has neither."""
    if weights.config is not None:
        return _checkpoint_settings(weights.config, source)
    experiment = preset(source)
    return None if experiment is None else replace(compose_run(experiment), weights=source)


def preset(source: str) -> str | None:
    """The experiment of a public name, which is called like it; None if there is none."""
    name = public_name(source)
    return name if name in choices("experiment") else None


def _checkpoint_settings(config: str, source: str) -> RunConfig:
    """The settings in a checkpoint, without those of the machine that trained it."""
    run = parse_run(config, source)
    data = replace(run.data, num_workers=None)
    return replace(run, weights=source, data=data, dist=DistConfig())
