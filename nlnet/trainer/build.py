"""Build the optimizer, the schedule and the settings of the loop from the config of a run."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from nlnet.checks import at_least, below, one_of, positive, section, within
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
from nlnet.errors import UsageError
from nlnet.numerics.precision import choose_precision
from nlnet.trainer.allocator import set_allocator
from nlnet.trainer.cuda_arithmetic import cuda_arithmetic
from nlnet.trainer.optim import parameter_groups
from nlnet.trainer.schedule import Schedule, cosine_schedule, step_schedule, with_warmup
from nlnet.trainer.settings import LoopSettings, Remedies

PRECISIONS: dict[str, Callable[[torch.device], torch.dtype | None]] = {
    "fp32": lambda device: None,
    "bf16": lambda device: torch.bfloat16,
    "fp16": lambda device: torch.float16,
    "auto": lambda device: choose_precision(device).dtype,
}
REMEDIES = Remedies(
    not_finite="lower optim.lr, lengthen schedule.warmup or set trainer.clip_grad_norm",
    unreadable="raise data.max_bad_share",
)


def build_optimizer(cfg: OptimConfig, model: nn.Module) -> Optimizer:
    """Build the optimizer of the parameters that learn. Freeze parts of the model before.

    Raises UsageError if a number is out of range, or if no parameter learns.
    """
    positive("optim.lr", cfg.lr)
    at_least("optim.weight_decay", cfg.weight_decay, 0)
    groups = parameter_groups(
        model, cfg.weight_decay, decay_norm=cfg.decay_norm, decay_bias=cfg.decay_bias
    )
    if not groups:
        raise UsageError("trainer.freeze: no parameter is left to train; freeze fewer parts")
    on_gpu = all(p.is_cuda for group in groups for p in group["params"])
    fused = True if cfg.fused and on_gpu else None  # None: torch's choice
    match cfg:
        case SGDConfig():
            at_least("optim.momentum", cfg.momentum, 0)
            below("optim.momentum", cfg.momentum, 1)
            if cfg.nesterov and cfg.momentum == 0:
                raise UsageError(
                    "optim.nesterov=true needs optim.momentum above 0; set optim.nesterov=false"
                )
            momentum, nesterov = cfg.momentum, cfg.nesterov
            return torch.optim.SGD(
                groups, lr=cfg.lr, momentum=momentum, nesterov=nesterov, fused=fused
            )
        case AdamWConfig():
            match cfg.betas:
                case [first, second] if 0 <= first < 1 and 0 <= second < 1:
                    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(first, second), fused=fused)
            raise UsageError(
                f"optim.betas={list(cfg.betas)} must be two numbers, each 0 or more and below 1"
            )
    raise TypeError(f"no optimizer is known for {type(cfg).__name__}")


def build_schedule(cfg: ScheduleConfig, total_steps: int, steps_per_epoch: int) -> Schedule:
    """Build the multiplier of the learning rate.

    Raises UsageError if a number is out of range, for instance a warm-up longer than the run.
    """
    _check_warmup(cfg, total_steps / steps_per_epoch)
    match cfg:
        case StepConfig():
            if any(not 0 < milestone < 1 for milestone in cfg.milestones):
                raise UsageError(
                    f"schedule.milestones={list(cfg.milestones)} must be shares of the run, each "
                    "a number between 0 and 1"
                )
            within("schedule.gamma", cfg.gamma, 0, 1)
            schedule = step_schedule(total_steps, cfg.milestones, cfg.gamma)
        case CosineConfig():
            within("schedule.floor", cfg.floor, 0, 1)
            schedule = cosine_schedule(total_steps, cfg.floor)
        case _:
            raise TypeError(f"no schedule is known for {type(cfg).__name__}")
    return with_warmup(schedule, cfg.warmup * steps_per_epoch, cfg.warmup_start)


def _check_warmup(cfg: ScheduleConfig, num_epochs: float) -> None:
    if not 0 <= cfg.warmup <= num_epochs:
        raise UsageError(
            f"schedule.warmup={cfg.warmup} must be from 0 to the length of the run, "
            f"{num_epochs:g} epochs; set schedule.warmup=0"
        )
    within("schedule.warmup_start", cfg.warmup_start, 0, 1)


def build_precision(cfg: TrainerConfig, device: torch.device) -> torch.dtype | None:
    """Return the dtype of autocast, None for float32. Raises UsageError for an unknown name."""
    return one_of("trainer.precision", cfg.precision, PRECISIONS)(device)


def build_scaler(cfg: TrainerConfig, device: torch.device) -> GradScaler:
    """Build the loss scaler. It is active for float16 on a GPU only."""
    needed = device.type == "cuda" and build_precision(cfg, device) == torch.float16
    return GradScaler(device.type, enabled=needed)


def build_settings(
    cfg: RunConfig,
    steps_per_epoch: int,
    device: torch.device,
    class_counts: np.ndarray | None = None,
) -> LoopSettings:
    """Build the settings of the loop. Raises UsageError if a number is out of range.

    `class_counts` (K,) are the numbers of training videos; without them, classes weigh alike.
    """
    trainer = cfg.trainer
    _check_ranges(trainer)
    within("data.max_bad_share", cfg.data.max_bad_share, 0, 1)
    total_steps = _total_steps(trainer, steps_per_epoch)
    return LoopSettings(
        device=device,
        seed=cfg.seed,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        lr=cfg.optim.lr,
        schedule=build_schedule(cfg.schedule, total_steps, steps_per_epoch),
        accumulate=trainer.accumulate,
        clip_grad_norm=trainer.clip_grad_norm,
        label_smoothing=trainer.label_smoothing,
        one_label=cfg.model.activation == "softmax",
        class_weights=_class_weights(trainer.loss_balance, class_counts, device),
        precision=build_precision(trainer, device),
        channels_last=trainer.channels_last,
        freeze=tuple(trainer.freeze),
        max_bad_share=cfg.data.max_bad_share,
        precise_bn=trainer.precise_bn,
        eval_every=trainer.eval_every,
        save_every_steps=trainer.save_every_steps,
        max_bad_steps=trainer.max_bad_steps,
        save_every_minutes=trainer.save_every_minutes,
        keep_checkpoints=trainer.keep_checkpoints,
        max_minutes=trainer.max_minutes,
        remedies=REMEDIES,
    )


def _check_ranges(cfg: TrainerConfig) -> None:
    counts = {
        "epochs": cfg.epochs,
        "max_steps": cfg.max_steps,
        "accumulate": cfg.accumulate,
        "eval_every": cfg.eval_every,
        "save_every_steps": cfg.save_every_steps,
        "max_bad_steps": cfg.max_bad_steps,
        "keep_checkpoints": cfg.keep_checkpoints,
    }
    for name, count in counts.items():
        if count is not None:
            at_least(f"trainer.{name}", count, 1)
    at_least("trainer.label_smoothing", cfg.label_smoothing, 0)
    below("trainer.label_smoothing", cfg.label_smoothing, 1)
    if cfg.clip_grad_norm is not None and not cfg.clip_grad_norm > 0:
        raise UsageError(
            f"trainer.clip_grad_norm={cfg.clip_grad_norm} must be above 0, or null for no clipping"
        )
    at_least("trainer.precise_bn", cfg.precise_bn, 0)
    if cfg.ema is not None:
        positive("trainer.ema", cfg.ema)
        below("trainer.ema", cfg.ema, 1)
    within("trainer.loss_balance", cfg.loss_balance, 0, 1)
    for name, minutes in (
        ("max_minutes", cfg.max_minutes),
        ("save_every_minutes", cfg.save_every_minutes),
    ):
        if minutes is not None:
            positive(f"trainer.{name}", minutes)


def _class_weights(
    balance: float, counts: np.ndarray | None, device: torch.device
) -> torch.Tensor | None:
    """Weights (K,) in proportion to n^-balance, whose mean over the videos is 1."""
    if counts is None or balance == 0:
        return None
    weights = np.maximum(counts, 1.0) ** -balance
    weights *= counts.sum() / (weights * counts).sum()
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _total_steps(cfg: TrainerConfig, steps_per_epoch: int) -> int:
    match cfg.epochs, cfg.max_steps:
        case int(epochs), None:
            return epochs * steps_per_epoch
        case None, int(max_steps):
            return max_steps
        case None, None:
            raise UsageError("trainer.epochs: the run has no length; give trainer.epochs=NUMBER")
    raise UsageError(
        f"trainer.epochs={cfg.epochs} and trainer.max_steps={cfg.max_steps} both give the length "
        "of the run; set trainer.max_steps=null, or trainer.epochs=null"
    )


def check_labels(cfg: RunConfig, split: str, labels: np.ndarray) -> None:
    """Raise UsageError if the labels of a split do not fit the activation or the smoothing.

    Args:
        split: its name, for the message
        labels: (N,), or (N, K) if videos have several labels
    """
    smoothing, activation = cfg.trainer.label_smoothing, cfg.model.activation
    if labels.ndim == 2 and activation != "sigmoid":
        raise UsageError(
            f"model.activation={activation} is for one label per video, but the videos of {split} "
            "have several; use model.activation=sigmoid"
        )
    if labels.ndim == 2 and smoothing:
        raise UsageError(
            f"trainer.label_smoothing={smoothing} is for one label per video, but the videos of "
            f"{split} have several; set trainer.label_smoothing=0"
        )
    if labels.ndim == 1 and activation == "sigmoid":
        raise UsageError(
            f"model.activation=sigmoid is for several labels per video, but the videos of {split} "
            "have one; use model.activation=softmax, or put a comma after a label in the list"
        )


def apply_allocator(cfg: TrainerConfig) -> None:
    """Set how this process allocates memory. Raises UsageError for an unknown name."""
    with section("trainer"):
        set_allocator(cfg.allocator)


def build_cuda_arithmetic(cfg: TrainerConfig) -> AbstractContextManager[None]:
    """A context with the settings of CUDA devices; it changes nothing that a CPU computes."""
    benchmark = cfg.cudnn_benchmark and not cfg.deterministic
    return cuda_arithmetic(cudnn_benchmark=benchmark, tf32=cfg.tf32)
