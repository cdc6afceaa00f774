"""One training run, from its configuration to its checkpoints."""

import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch

from nlnet.checkpoint import current_provenance
from nlnet.checks import one_of, section
from nlnet.cli.folders import claim_folder, hold_folder, network_differences
from nlnet.cli.mistakes import leave_error
from nlnet.clip import ManifestUse
from nlnet.config import RunConfig, run_text
from nlnet.data.build import build_eval_loader, build_train_loader
from nlnet.data.decoding.probing import PROBES
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.loader import EvalLoader, TrainLoader
from nlnet.distributed.build import build_device, build_limits
from nlnet.distributed.ranks import process_group, rank, world_size
from nlnet.distributed.watch import Watch
from nlnet.errors import UsageError
from nlnet.files import COMMAND, write_text
from nlnet.jobs.arithmetic import trust_convolutions
from nlnet.jobs.board import show_validation
from nlnet.jobs.data_changes import check_data
from nlnet.jobs.debug import check_debug, clear_debug_folder, run_debug
from nlnet.jobs.describe_run import describe_changes, describe_data
from nlnet.jobs.deterministic import deterministic_algorithms
from nlnet.jobs.memory import describe_cpu_memory, named_out_of_memory
from nlnet.jobs.norm_values import check_norms
from nlnet.jobs.quarantine import broken_files, describe_broken, report_validation
from nlnet.jobs.strategy import check_strategy, describe_strategy, distribute, start_device
from nlnet.jobs.watching import watched_batches, watched_pause
from nlnet.jobs.worker_failures import named_worker_failures
from nlnet.model.build import build_model, check_clips
from nlnet.model.classifier import VideoClassifier
from nlnet.model.speed.checkpointing import save_memory
from nlnet.numerics.denormals import flushed_denormals
from nlnet.runs.ensembles import ENSEMBLES
from nlnet.runs.logger import RunLogger, progress_bar
from nlnet.trainer.averaging import average_weights
from nlnet.trainer.build import (
    apply_allocator,
    build_cuda_arithmetic,
    build_optimizer,
    build_precision,
    build_scaler,
    build_settings,
    check_labels,
)
from nlnet.trainer.loop import evaluate, fit
from nlnet.trainer.metrics import Metrics, VideoScores
from nlnet.trainer.preemption import OutOfTime
from nlnet.trainer.prepare import COMPILE_MODES, prepare_model
from nlnet.trainer.state import TrainState, resume
from nlnet.weights.load import INFLATIONS, load_weights
from nlnet.weights.public import locate


@flushed_denormals()
def check_training(run: RunConfig) -> None:
    """Raise a UserError for every mistake that can be found before training starts.

    Weights with a URL or a public name are downloaded here, once, before there are several ranks.
    """
    with torch.device("meta"):
        model = build_model(run.model, num_classes=2)
    clip, crop_sizes = run.data.clip, (run.data.clip.crop_size, run.data.val_views.crop_size)
    check_clips(run.model, clip.num_frames, crop_sizes)
    _prepare(run, model)
    build_optimizer(run.optim, model)
    check_norms(run)
    one_of("inflation", run.inflation, INFLATIONS)
    one_of("data.probe", run.data.probe, PROBES)
    one_of("data.val_views.ensemble", run.data.val_views.ensemble, ENSEMBLES)
    if run.weights is not None:
        locate(run.weights)
    if run.trainer.compile and run.trainer.checkpoint_stages:
        raise UsageError(
            "trainer.checkpoint_stages has no effect on a compiled network, which chooses by "
            "itself what it recomputes; set trainer.compile=false or trainer.checkpoint_stages=[]"
        )
    one_of("trainer.compile_mode", run.trainer.compile_mode, dict.fromkeys(COMPILE_MODES))
    if run.dist.static_graph and run.trainer.accumulate > 1:  # pytorch pull request 187732
        raise UsageError(
            "dist.static_graph=true does not work with trainer.accumulate above 1 in several "
            "versions of torch; set dist.static_graph=false or trainer.accumulate=1"
        )
    build_settings(run, steps_per_epoch=1, device=torch.device("cpu"))
    build_limits(run.dist)
    check_strategy(run)
    check_debug(run)


@contextmanager
def claim(run: RunConfig, out_dir: Path) -> Iterator[None]:
    """Hold the run folder, and write config.yaml and the command; an earlier debug run is cleared.

    Raises UserError if the folder belongs to a run with another configuration, and if another
    process trains in it.
    """
    with hold_folder(out_dir):
        clear_debug_folder(run, out_dir)
        claim_folder(run, out_dir)
        write_text(out_dir / COMMAND, f"{shlex.join(sys.orig_argv)}\n")
        yield


@flushed_denormals()
def train(run: RunConfig, out_dir: Path) -> float:
    """Train a run, or resume it, as one of its ranks.

    Writes the run folder: last.pt, best.pt, metrics.json, log.txt and TensorBoard events.

    Returns:
        the best validation score so far, in percent

    Raises:
        UserError: the data, the weights or the settings have a mistake.
        Preempted: a signal asked the run to stop; last.pt is written.
    """
    apply_allocator(run.trainer)
    with deterministic_algorithms(run.trainer), build_cuda_arithmetic(run.trainer):
        device = build_device(run.dist)
        watch = Watch(out_dir, build_limits(run.dist), leave_error)
        memory = named_out_of_memory(run, device, partial(_prepare, run))
        with process_group(device, watch), named_worker_failures(), memory:
            return _train(run, out_dir, device, watch)


def _train(run: RunConfig, out_dir: Path, device: torch.device, watch: Watch) -> float:
    """Train within the group of ranks.

    It is a function of its own so that no network, and with it DDP, is left when the group ends.
    """
    broken = broken_files(run, out_dir)
    loader, val_loader = _build_loaders(run, device, broken)
    state, lines = _build_state(run, loader.index.class_names, device)
    settings = build_settings(run, loader.steps_per_epoch, device, loader.index.class_counts)
    lines += describe_data(run, loader, val_loader, settings.total_steps, device)
    lines += [
        *describe_strategy(run),
        *describe_broken(broken),
        *(describe_cpu_memory(run) if device.type == "cpu" else ()),
        *resume(state, out_dir, other_names=run.trainer.accept_changes),
        *describe_changes(run, state.resumed),
        *check_data(run, out_dir, state, loader, val_loader),
    ]
    with RunLogger(
        out_dir,
        total_steps=settings.total_steps,
        start_step=state.progress.global_step,
        missing={"train": len(loader.index.missing), "val": len(val_loader.index.missing)},
        manifests=_manifests(train=loader.index, val=val_loader.index),
    ) as logger:
        logger.config(run_text(run))
        for line in lines:
            logger.say(line)
        trust_convolutions(run, state.model, device, logger.say)
        network = distribute(run, state, device)
        with suppress(OutOfTime):  # the log says so, and last.pt is written
            known, accumulate = state.progress.bad_files, run.trainer.accumulate
            loader_at = watched_batches(loader, watch, accumulate=accumulate, known=known)
            if run_debug(run, state, network, settings, loader_at, logger):
                return 0.0
            fit(
                state,
                network,
                settings,
                loader_at=loader_at,
                validate=watched_pause(
                    watch, "evaluates", partial(_validate, run, state, val_loader, device, logger)
                ),
                logger=logger,
                out_dir=out_dir,
                name_video=lambda row: str(loader.index.path(row)),
            )
            logger.done(state.progress)
    return state.progress.best or 0.0


def _build_loaders(
    run: RunConfig, device: torch.device, broken: Collection[str]
) -> tuple[TrainLoader, EvalLoader]:
    """This rank's share of the training split, without broken files, and of validation."""
    pin_memory = device.type == "cuda"
    loader = build_train_loader(
        run.data,
        seed=run.seed,
        accumulate=run.trainer.accumulate,
        rank=rank(),
        world_size=world_size(),
        pin_memory=pin_memory,
        left_out=broken,
    )
    val_loader = build_eval_loader(
        run.data,
        run.data.val,
        run.data.val_views,
        rank=rank(),
        world_size=world_size(),
        class_names=loader.index.class_names,
        pin_memory=pin_memory,
        key="data.val_views",
        max_batches=run.debug.val_batches,
    )
    check_labels(run, run.data.train, loader.index.labels)
    check_labels(run, run.data.val, val_loader.index.labels)
    return loader, val_loader


def _manifests(**splits: VideoIndex) -> dict[str, ManifestUse]:
    return {name: index.manifest for name, index in splits.items() if index.manifest is not None}


def _build_state(
    run: RunConfig, class_names: Sequence[str], device: torch.device
) -> tuple[TrainState, list[str]]:
    """The network and its optimizer at the start of a run, and log lines that describe them."""
    torch.manual_seed(run.seed)
    model = build_model(run.model, len(class_names))
    lines = [f"{run.name}: {sum(p.numel() for p in model.parameters()):,} parameters"]
    if run.weights is not None:
        report = load_weights(model, run.weights, inflation=run.inflation, class_names=class_names)
        lines += [*report.remarks, report.summary()]
        config = report.config
        changes = [] if config is None else network_differences(config, run.model)
        if changes:
            lines.append(f"the weights were trained as another network: {', '.join(changes)}")
    _prepare(run, model)
    if run.trainer.freeze:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        lines.append(f"frozen: {', '.join(run.trainer.freeze)}; {trained:,} parameters are trained")
    model.to(start_device(run, device))
    optimizer = build_optimizer(run.optim, model)
    average = None
    if run.trainer.ema is not None:
        average = average_weights(model, run.trainer.ema, channels_last=run.trainer.channels_last)
        lines.append(f"evaluates the average of the weights, trainer.ema={run.trainer.ema}")
    made_by = current_provenance(run_text(run), list(class_names))
    scaler = build_scaler(run.trainer, device)
    return TrainState(model, optimizer, made_by, scaler, average=average), lines


def _prepare(run: RunConfig, model: VideoClassifier) -> None:
    """Freeze parts of the network, and replace modules by forms that save memory."""
    with section("trainer"):
        prepare_model(
            model,
            freeze=run.trainer.freeze,
            save_memory=partial(
                save_memory,
                lean=run.trainer.lean,
                checkpoint_stages=run.trainer.checkpoint_stages,
            ),
        )


def _validate(
    run: RunConfig, state: TrainState, loader: EvalLoader, device: torch.device, logger: RunLogger
) -> Metrics:
    """The metrics of the validation split, in percent; TensorBoard shows the confusion matrix."""
    model = state.evaluated
    assert isinstance(model, VideoClassifier)
    views = run.data.val_views
    labels = torch.from_numpy(loader.index.labels)
    scores = VideoScores(labels, len(loader.index.class_names), views.ensemble)
    metrics = evaluate(
        model,
        progress_bar(loader, "validation"),
        scores,
        device=device,
        chunk=views.batch_size,
        precision=build_precision(run.trainer, device),
        channels_last=run.trainer.channels_last,
    )
    report_validation(loader, scores.failures, logger)
    show_validation(logger, scores, loader.index.class_names, state.progress.global_step)
    return metrics
