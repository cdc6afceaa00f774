"""Train a video network, or resume its training: the same command does both.

Examples:
  python tools/train.py +experiment=i3d_nl5 data.root=/data/kinetics400 dist.num_procs=8
  python tools/train.py +experiment=folder model=i3d_tiny data.root=my_videos weights=best.pt
  python tools/train.py -m +experiment=c2d_nl1 +sweep=pairwise

A run lives in outputs/<name>/train: config.yaml, last.pt, best.pt, metrics.json, log.txt and the
TensorBoard events. configs/README.md explains the grammar of the words above.
"""

import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from nlnet.checkpoint import current_provenance
from nlnet.checks import one_of
from nlnet.cli.folders import claim_folder, network_differences
from nlnet.cli.tool import RESOLVED, is_rank, launch_ranks, run_tool, to_run
from nlnet.config import RunConfig, parse_run, register_schemas, run_text
from nlnet.data.build import build_eval_loader, build_train_loader
from nlnet.data.loader import EvalLoader, TrainLoader
from nlnet.distributed.ranks import pick_device, process_group, rank, world_size
from nlnet.errors import UsageError
from nlnet.model.build import build_model
from nlnet.model.classifier import VideoClassifier
from nlnet.model.cost import check_clips
from nlnet.model.speed.checkpointing import save_memory
from nlnet.runs.logger import METRICS, RunLogger, progress_bar
from nlnet.trainer.allocator import set_allocator
from nlnet.trainer.build import (
    build_network,
    build_optimizer,
    build_precision,
    build_recipe,
    build_scaler,
    check_labels,
)
from nlnet.trainer.loop import evaluate, fit
from nlnet.trainer.metrics import ENSEMBLES, VideoScores
from nlnet.trainer.optim import freeze
from nlnet.trainer.state import TrainState, resume
from nlnet.weights.load import INFLATIONS, load_weights
from nlnet.weights.public import locate


def train(run: RunConfig, out_dir: Path) -> float:
    """Make a run, or the rest of it, as one of its ranks; returns its best score, in percent."""
    set_allocator(run.trainer.allocator)
    device = pick_device(run.dist.device)
    with process_group(device):
        loader, val_loader = build_loaders(run, device)
        state, lines = build_state(run, loader.index.class_names, device)
        recipe = build_recipe(run, loader.steps_per_epoch, device)
        lines.append(
            f"{world_size()} x {device.type}, {run.trainer.precision}; {len(loader.index)} videos "
            f"of {len(loader.index.class_names)} classes to train on, {len(val_loader.index)} to "
            f"validate on; {recipe.total_steps} steps of {run.data.batch_size} clips"
        )
        for index in (loader.index, val_loader.index):
            if index.missing:
                lines.append(f"{len(index.missing)} listed videos have no file and are left out")
        lines += resume(state, out_dir)
        with RunLogger(
            out_dir,
            total_steps=recipe.total_steps,
            steps_per_epoch=recipe.steps_per_epoch,
            start_step=state.progress.global_step,
            missing={"train": len(loader.index.missing), "val": len(val_loader.index.missing)},
        ) as logger:
            logger.config(run_text(run))
            for line in lines:
                logger.say(line)
            fit(
                state,
                build_network(run.trainer, state.model, device),
                recipe,
                loader_at=loader.at,
                validate=partial(validate, run, state.model, val_loader, device),
                logger=logger,
                out_dir=out_dir,
            )
            logger.done(state.progress)
        return state.progress.best or 0.0


def build_loaders(run: RunConfig, device: torch.device) -> tuple[TrainLoader, EvalLoader]:
    """This rank's share of the training and the validation split."""
    pin_memory = device.type == "cuda"
    loader = build_train_loader(
        run.data,
        seed=run.seed,
        accumulate=run.trainer.accumulate,
        rank=rank(),
        world_size=world_size(),
        pin_memory=pin_memory,
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
    )
    check_labels(run, run.data.train, loader.index.labels)
    check_labels(run, run.data.val, val_loader.index.labels)
    return loader, val_loader


def build_state(
    run: RunConfig, class_names: Sequence[str], device: torch.device
) -> tuple[TrainState, list[str]]:
    """The network and its optimiser as a run begins, and lines that tell what they are."""
    torch.manual_seed(run.seed)
    model = build_model(run.model, len(class_names))
    lines = [f"{run.name}: {sum(p.numel() for p in model.parameters()):,} parameters"]
    if run.weights is not None:
        report = load_weights(model, run.weights, inflation=run.inflation, class_names=class_names)
        lines.append(report.summary())
        config = report.config
        changes = [] if config is None else network_differences(config, run.model)
        if changes:
            lines.append(f"the weights were trained as another network: {', '.join(changes)}")
    freeze(model, run.trainer.freeze)
    if run.trainer.freeze:
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        lines.append(f"frozen: {', '.join(run.trainer.freeze)}; {learning:,} parameters learn")
    save_memory(model, lean=run.trainer.lean, checkpoint_stages=run.trainer.checkpoint_stages)
    model.to(device)
    optimizer = build_optimizer(run.optim, model)
    made_by = current_provenance(run_text(run), list(class_names))
    return TrainState(model, optimizer, made_by, build_scaler(run.trainer, device)), lines


def validate(
    run: RunConfig, model: nn.Module, loader: EvalLoader, device: torch.device
) -> dict[str, float]:
    """The metrics of the validation split."""
    assert isinstance(model, VideoClassifier)
    views = run.data.val_views
    labels = torch.from_numpy(loader.index.labels)
    scores = VideoScores(labels, len(loader.index.class_names), views.ensemble)
    return evaluate(
        model,
        progress_bar(loader, "validation"),
        scores,
        device=device,
        chunk=views.batch_size,
        precision=build_precision(run.trainer, device),
        channels_last=run.trainer.channels_last,
    )


def check(run: RunConfig) -> None:
    """Find what is wrong with a run before its ranks start: a UserError each."""
    with torch.device("meta"):
        model = build_model(run.model, num_classes=2)
    clip, crop_sizes = run.data.clip, (run.data.clip.crop_size, run.data.val_views.crop_size)
    check_clips(partial(build_model, run.model, num_classes=2), clip.num_frames, crop_sizes)
    freeze(model, run.trainer.freeze)
    build_optimizer(run.optim, model)
    one_of("inflation", run.inflation, INFLATIONS)
    one_of("data.val_views.ensemble", run.data.val_views.ensemble, ENSEMBLES)
    if run.weights is not None:
        locate(run.weights)  # downloaded once, before there are ranks
    if run.trainer.compile and run.trainer.checkpoint_stages:
        raise UsageError(
            "trainer.checkpoint_stages: a compiled network chooses by itself what it computes "
            "twice; leave one of trainer.compile and trainer.checkpoint_stages out"
        )
    save_memory(model, lean=run.trainer.lean, checkpoint_stages=run.trainer.checkpoint_stages)
    build_recipe(run, steps_per_epoch=1, device=torch.device("cpu"))


@hydra.main(version_base="1.3", config_path="../configs", config_name="run")
def main(cfg: DictConfig) -> float:
    run: RunConfig = to_run(cfg)
    out_dir = Path(HydraConfig.get().runtime.output_dir)
    check(run)
    if is_rank():  # torchrun or SLURM made the ranks; each has composed the same configuration
        if os.environ["RANK"] == "0":
            claim_folder(run, out_dir)
        return train(run, out_dir)
    config = claim_folder(run, out_dir)
    if run.dist.num_procs == 1:
        return train(run, out_dir)
    launch_ranks(Path(__file__), config, run.dist.num_procs)
    metrics = json.loads((out_dir / METRICS).read_text())
    return next(value for key, value in metrics.items() if key.startswith("best_"))


if __name__ == "__main__":
    register_schemas()
    if sys.argv[1:2] == [RESOLVED]:
        path = Path(sys.argv[2])
        run_tool(lambda: train(parse_run(path.read_text(), str(path)), path.parent))
    else:
        run_tool(main, __doc__)
