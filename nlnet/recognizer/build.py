"""The settings of a run and a file of weights -> a Recognizer."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from nlnet.cli.folders import network_differences
from nlnet.config import RunConfig
from nlnet.data.build import build_files_loader, build_video_views, build_window_views
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.classifier import VideoClassifier
from nlnet.model.speed.folding import fold_norms
from nlnet.recognizer.recognizer import Recognizer
from nlnet.trainer.build import build_precision
from nlnet.weights.files import WeightFile
from nlnet.weights.load import match


def build_recognizer(
    run: RunConfig,
    weights: WeightFile,
    class_names: Sequence[str],
    device: torch.device,
    *,
    source: str,
) -> Recognizer:
    """The trained network of a file, ready to score videos as `run` says.

    Args:
        run: the network, the clips and data.test_views
        weights: what the file holds
        class_names: K names, in the order of the network's outputs
        device: where the network computes
        source: where the file came from, for messages

    Raises:
        UserError: the network of `run` is not the one that was trained.
    """
    model = trained_model(run, weights, len(class_names), source)
    if run.trainer.fold_norms:
        model = fold_norms(model)
    model.to(device).eval()
    if run.trainer.channels_last:
        model.to(memory_format=torch.channels_last_3d)
    views = run.data.test_views
    middle = replace(run.data, test_views=replace(views, num_clips=1, num_crops=1))

    return Recognizer(
        model=model,
        class_names=tuple(class_names),
        read_views=partial(build_video_views, run.data),
        read_clip=partial(build_video_views, middle),
        read_files=partial(build_files_loader, run.data),
        window_views=build_window_views(run.data),
        ensemble=views.ensemble,
        chunk=views.batch_size,
        device=device,
        precision=build_precision(run.trainer, device),
        channels_last=run.trainer.channels_last,
    )


def trained_model(
    run: RunConfig, weights: WeightFile, num_classes: int, source: str
) -> VideoClassifier:
    """The network of `run` with the weights of a file, which must be of that very network."""
    model = build_model(run.model, num_classes)
    state, report = match(weights, model.state_dict(), source)
    if report.new or report.inflated:
        raise UserError(f"{report.summary()}: another network; give the experiment it came from")
    model.load_state_dict({**model.state_dict(), **state})
    changes = [] if weights.config is None else network_differences(weights.config, run.model)
    if changes:
        raise UserError(
            f"{source}: was trained as another network ({', '.join(changes)}); give the "
            "experiment and the overrides that it was trained with"
        )
    return model


def count_classes(weights: WeightFile, source: str) -> int:
    """The number of outputs of the classifier; raises UserError for a file without a classifier."""
    if "head.fc.weight" not in weights.state:
        raise UserError(f"{source}: has no classifier; train one first with weights={source}")
    return len(weights.state["head.fc.weight"])
