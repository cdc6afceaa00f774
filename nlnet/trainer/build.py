"""The config of a run -> its optimiser, schedule, recipe and network."""

import warnings
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from nlnet.config import (
    AdamWConfig,
    CosineConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    SGDConfig,
    StepConfig,
    TrainerConfig,
)
from nlnet.distributed import world_size
from nlnet.errors import UsageError, choose
from nlnet.trainer.optim import parameter_groups
from nlnet.trainer.recipe import Recipe
from nlnet.trainer.schedule import Schedule, cosine_schedule, step_schedule, with_warmup

PRECISIONS: dict[str, Callable[[torch.device], torch.dtype | None]] = {
    "fp32": lambda device: None,
    "bf16": lambda device: torch.bfloat16,
    "fp16": lambda device: torch.float16,
    "auto": lambda device: torch.bfloat16 if device.type == "cuda" else None,
}


def build_optimizer(cfg: OptimConfig, model: nn.Module) -> Optimizer:
    """The optimiser of the parameters that learn; freeze parts of the model before."""
    groups = parameter_groups(
        model, cfg.weight_decay, decay_norm=cfg.decay_norm, decay_bias=cfg.decay_bias
    )
    match cfg:
        case SGDConfig():
            return torch.optim.SGD(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.nesterov)
        case AdamWConfig():
            first, second = cfg.betas
            return torch.optim.AdamW(groups, lr=cfg.lr, betas=(first, second))
    raise TypeError(f"no optimiser for {type(cfg).__name__}")


def build_schedule(cfg: ScheduleConfig, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The multiplier of the learning rate at each step; raises UsageError."""
    match cfg:
        case StepConfig():
            if any(not 0 < milestone < 1 for milestone in cfg.milestones):
                raise UsageError(
                    f"schedule.milestones: {list(cfg.milestones)} are not shares of the run;"
                    " each is a number between 0 and 1"
                )
            schedule = step_schedule(total_steps, cfg.milestones, cfg.gamma)
        case CosineConfig():
            schedule = cosine_schedule(total_steps, cfg.floor)
        case _:
            raise TypeError(f"no schedule for {type(cfg).__name__}")
    return with_warmup(schedule, cfg.warmup * steps_per_epoch, cfg.warmup_start)


def build_precision(cfg: TrainerConfig, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, None for float32; raises UsageError."""
    return choose("trainer.precision", cfg.precision, PRECISIONS)(device)


def build_scaler(cfg: TrainerConfig, device: torch.device) -> GradScaler:
    """The loss scaler that float16 needs on a GPU; elsewhere it does nothing."""
    needed = device.type == "cuda" and build_precision(cfg, device) == torch.float16
    return GradScaler(device.type, enabled=needed)


def build_recipe(cfg: RunConfig, steps_per_epoch: int, device: torch.device) -> Recipe:
    """How the run is trained, its length included; raises UsageError."""
    trainer = cfg.trainer
    counts = {
        "epochs": trainer.epochs,
        "max_steps": trainer.max_steps,
        "accumulate": trainer.accumulate,
        "eval_every": trainer.eval_every,
        "save_every_steps": trainer.save_every_steps,
    }
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UsageError(f"trainer.{name}: is {count}, must be 1 or more")
    total_steps = trainer.epochs * steps_per_epoch
    if trainer.max_steps is not None:
        total_steps = trainer.max_steps
    return Recipe(
        device=device,
        seed=cfg.seed,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        lr=cfg.optim.lr,
        schedule=build_schedule(cfg.schedule, total_steps, steps_per_epoch),
        accumulate=trainer.accumulate,
        clip_grad_norm=trainer.clip_grad_norm,
        label_smoothing=trainer.label_smoothing,
        precision=build_precision(trainer, device),
        channels_last=trainer.channels_last,
        max_bad_share=cfg.data.max_bad_share,
        precise_bn=trainer.precise_bn,
        eval_every=trainer.eval_every,
        save_every_steps=trainer.save_every_steps,
    )


def check_labels(cfg: RunConfig, split: str, labels: np.ndarray) -> None:
    """Raise UsageError where the activation does not suit a split's labels, (N,) or (N, K)."""
    if labels.ndim == 2 and cfg.model.activation != "sigmoid":
        raise UsageError(
            f"model.activation={cfg.model.activation} is for one label a video, those of {split} "
            "bear several; use model.activation=sigmoid"
        )
    if labels.ndim == 1 and cfg.model.activation == "sigmoid":
        raise UsageError(
            f"model.activation=sigmoid is for several labels a video, those of {split} bear one; "
            "use model.activation=softmax, or end a label of the list with a comma"
        )


def build_network(cfg: TrainerConfig, model: nn.Module, device: torch.device) -> nn.Module:
    """The model (on its device already) as training calls it: compiled, wrapped for many ranks.

    It shares its parameters with the bare model, which evaluation and checkpoints use.
    """
    if cfg.channels_last:
        model.to(memory_format=torch.channels_last_3d)
    network = cast(nn.Module, torch.compile(model)) if cfg.compile else model
    if world_size() > 1:
        devices = [device] if device.type == "cuda" else None
        # A 1x1x1 kernel is laid out alike in both memory formats; DDP would call its strides odd.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        network = DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)
    return network
