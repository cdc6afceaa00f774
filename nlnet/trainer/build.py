"""The config of a run -> its optimiser, schedule, recipe and network."""

import math
import warnings
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from nlnet.checks import one_of
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
from nlnet.distributed.ranks import world_size
from nlnet.errors import UsageError
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
    """The optimiser of the parameters that learn; freeze parts of the model before.

    Raises UsageError for numbers out of their range, and where nothing learns.
    """
    _refuse_unless(0 < cfg.lr < math.inf, "optim.lr", cfg.lr, "a number above 0")
    _refuse_unless(cfg.weight_decay >= 0, "optim.weight_decay", cfg.weight_decay, "0 or more")
    groups = parameter_groups(
        model, cfg.weight_decay, decay_norm=cfg.decay_norm, decay_bias=cfg.decay_bias
    )
    if not groups:
        raise UsageError("trainer.freeze: no parameter is left to learn; freeze less")
    match cfg:
        case SGDConfig():
            momentum = cfg.momentum
            _refuse_unless(0 <= momentum < 1, "optim.momentum", momentum, "within 0 and 1, below 1")
            if cfg.nesterov and momentum == 0:
                raise UsageError(
                    "optim.nesterov=true needs optim.momentum above 0; set optim.nesterov=false"
                )
            return torch.optim.SGD(groups, lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.nesterov)
        case AdamWConfig():
            match cfg.betas:
                case [first, second] if 0 <= first < 1 and 0 <= second < 1:
                    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(first, second))
            raise UsageError(
                f"optim.betas={list(cfg.betas)} must be two numbers, each from 0 to below 1"
            )
    raise TypeError(f"no optimiser for {type(cfg).__name__}")


def build_schedule(cfg: ScheduleConfig, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The multiplier of the learning rate at each step; raises UsageError."""
    warmup, start = cfg.warmup, cfg.warmup_start
    longest = total_steps / steps_per_epoch
    _refuse_unless(
        0 <= warmup <= longest,
        "schedule.warmup",
        warmup,
        f"within 0 and the length of the run, {longest:g} epochs",
    )
    _refuse_unless(0 <= start <= 1, "schedule.warmup_start", start, "within 0 and 1")
    match cfg:
        case StepConfig():
            if any(not 0 < milestone < 1 for milestone in cfg.milestones):
                raise UsageError(
                    f"schedule.milestones: {list(cfg.milestones)} are not shares of the run;"
                    " each is a number between 0 and 1"
                )
            _refuse_unless(0 <= cfg.gamma <= 1, "schedule.gamma", cfg.gamma, "within 0 and 1")
            schedule = step_schedule(total_steps, cfg.milestones, cfg.gamma)
        case CosineConfig():
            _refuse_unless(0 <= cfg.floor <= 1, "schedule.floor", cfg.floor, "within 0 and 1")
            schedule = cosine_schedule(total_steps, cfg.floor)
        case _:
            raise TypeError(f"no schedule for {type(cfg).__name__}")
    return with_warmup(schedule, warmup * steps_per_epoch, start)


def build_precision(cfg: TrainerConfig, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, None for float32; raises UsageError."""
    return one_of("trainer.precision", cfg.precision, PRECISIONS)(device)


def build_scaler(cfg: TrainerConfig, device: torch.device) -> GradScaler:
    """The loss scaler that float16 needs on a GPU; elsewhere it does nothing."""
    needed = device.type == "cuda" and build_precision(cfg, device) == torch.float16
    return GradScaler(device.type, enabled=needed)


def build_recipe(cfg: RunConfig, steps_per_epoch: int, device: torch.device) -> Recipe:
    """How the run is trained, its length included; raises UsageError."""
    trainer = cfg.trainer
    _check_ranges(trainer)
    share = cfg.data.max_bad_share
    _refuse_unless(0 <= share <= 1, "data.max_bad_share", share, "within 0 and 1")
    total_steps = _total_steps(trainer, steps_per_epoch)
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


def _check_ranges(cfg: TrainerConfig) -> None:
    counts = {
        "epochs": cfg.epochs,
        "max_steps": cfg.max_steps,
        "accumulate": cfg.accumulate,
        "eval_every": cfg.eval_every,
        "save_every_steps": cfg.save_every_steps,
    }
    for name, count in counts.items():
        _refuse_unless(count is None or count >= 1, f"trainer.{name}", count, "1 or more")
    smoothing, norm = cfg.label_smoothing, cfg.clip_grad_norm
    _refuse_unless(
        0 <= smoothing < 1, "trainer.label_smoothing", smoothing, "within 0 and 1, below 1"
    )
    _refuse_unless(
        norm is None or norm > 0, "trainer.clip_grad_norm", norm, "above 0, or null for no clipping"
    )
    _refuse_unless(cfg.precise_bn >= 0, "trainer.precise_bn", cfg.precise_bn, "0 or more")


def _refuse_unless(valid: bool, key: str, value: object, wanted: str) -> None:
    if not valid:
        raise UsageError(f"{key}={value} must be {wanted}")


def _total_steps(cfg: TrainerConfig, steps_per_epoch: int) -> int:
    match cfg.epochs, cfg.max_steps:
        case int(epochs), None:
            return epochs * steps_per_epoch
        case None, int(max_steps):
            return max_steps
        case None, None:
            raise UsageError("trainer.epochs: the run has no length; give trainer.epochs=NUMBER")
    raise UsageError(
        f"trainer.epochs={cfg.epochs} and trainer.max_steps={cfg.max_steps} are two lengths of one "
        "run; set trainer.max_steps=null, or trainer.epochs=null"
    )


def check_labels(cfg: RunConfig, split: str, labels: np.ndarray) -> None:
    """Raise UsageError where a split's labels, (N,) or (N, K), do not suit how they are learnt."""
    if labels.ndim == 2 and cfg.model.activation != "sigmoid":
        raise UsageError(
            f"model.activation={cfg.model.activation} is for one label a video, those of {split} "
            "bear several; use model.activation=sigmoid"
        )
    if labels.ndim == 2 and cfg.trainer.label_smoothing:
        raise UsageError(
            f"trainer.label_smoothing={cfg.trainer.label_smoothing} is for one label a video, those"
            f" of {split} bear several; set trainer.label_smoothing=0"
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
