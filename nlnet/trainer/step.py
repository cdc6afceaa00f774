"""One step: forward, loss, backward over its micro-batches and ranks, update."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from nlnet.clip import ClipBatch
from nlnet.distributed.ranks import all_sum, rank
from nlnet.errors import UsageError, UserError
from nlnet.trainer.metrics import best_classes, is_right
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.recipe import Recipe
from nlnet.trainer.state import TrainState


class StepSums(NamedTuple):
    """What a step amounts to, summed over all ranks."""

    loss: float  # over its clips
    top1: float  # hits
    top5: float
    clips: float
    bad: float  # clips that could not be read and were replaced
    stop: float  # ranks that were asked to stop


def train_step(
    state: TrainState,
    network: nn.Module,
    recipe: Recipe,
    micro_batches: Sequence[ClipBatch],
    *,
    lr: float,
    stop: StopRequest,
) -> tuple[StepSums, float]:
    """Update the weights once; returns the sums over all ranks and the norm of the gradient.

    A loss or gradient that is not finite raises UserError on every rank before the update.
    """
    optimizer, scaler = state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    torch.manual_seed(step_seed(recipe.seed, state.progress.global_step))
    local = accumulate_gradients(network, micro_batches, recipe, scaler)
    scaler.unscale_(optimizer)
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    grad_norm = get_total_norm([p.grad for p in learning if p.grad is not None])
    if recipe.clip_grad_norm is not None:
        clip_grads_with_norm_(learning, recipe.clip_grad_norm, grad_norm)

    bad = sum(len(batch.failures) for batch in micro_batches)
    row = torch.tensor([*local.tolist(), bad, stop.signum > 0], dtype=torch.float64)
    sums = StepSums(*all_sum(row).tolist())
    # A loss scaler expects overflows: it leaves such a step out and lowers its scale.
    if not math.isfinite(sums.loss + (0.0 if scaler.is_enabled() else grad_norm.item())):
        raise UserError(
            f"epoch {state.progress.epoch + 1}, step {state.progress.step + 1}: the loss"
            f" ({sums.loss / sums.clips:.4g}) or its gradient ({grad_norm.item():.4g}) is not"
            " finite; lower optim.lr, lengthen schedule.warmup or set trainer.clip_grad_norm"
        )
    scaler.step(optimizer)
    scaler.update()
    return sums, grad_norm.item()


def accumulate_gradients(
    network: nn.Module, micro_batches: Sequence[ClipBatch], recipe: Recipe, scaler: GradScaler
) -> Tensor:
    """Add up the gradients of the mean loss over all clips of the micro-batches.

    Ranks count alike: each must hold equally many clips.

    Returns:
        sums over the clips (4,) float64: loss, hits of the best class and the best five, clips
    """
    clips = sum(len(batch.label) for batch in micro_batches)
    sums = torch.zeros(4, dtype=torch.float64, device=recipe.device)
    for i, batch in enumerate(micro_batches):
        batch = place(batch, recipe.device, recipe.channels_last)
        share = len(batch.label) / clips
        is_last = i + 1 == len(micro_batches)
        with nullcontext() if is_last else _unsynced(network):
            with autocast(recipe.device, recipe.precision):
                logits = network(batch.video)
            loss = classification_loss(logits.float(), batch.label, recipe.label_smoothing)
            scaler.scale(loss * share).backward()
        right = is_right(best_classes(logits.detach(), 5), batch.label)
        hits = right[:, 0].sum(), right.any(1).sum()
        sums += torch.stack([loss.detach() * len(right), *hits, loss.new_tensor(len(right))])
    return sums


def _unsynced(network: nn.Module) -> AbstractContextManager[None]:
    """The context in which ranks keep their gradients to themselves."""
    if isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()


def classification_loss(logits: Tensor, label: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy with labels (B,), or binary cross-entropy with label shares (B, K)."""
    if label.ndim == 1:
        return F.cross_entropy(logits, label, label_smoothing=smoothing)
    if smoothing:
        raise UsageError("trainer.label_smoothing: is for one label a video; set it to 0")
    return F.binary_cross_entropy_with_logits(logits, label)


def place(batch: ClipBatch, device: torch.device, channels_last: bool) -> ClipBatch:
    """The batch on a device, in the memory format of the convolutions."""
    batch = batch.to(device)
    if not channels_last:
        return batch
    return batch._replace(video=batch.video.contiguous(memory_format=torch.channels_last_3d))


def autocast(device: torch.device, precision: torch.dtype | None) -> torch.autocast:
    """The context that computes in a lower precision where that is safe; None does nothing."""
    return torch.autocast(device.type, dtype=precision, enabled=precision is not None)


def step_seed(seed: int, step: int) -> int:
    """The seed of everything random that this rank does in a step."""
    return int(np.random.SeedSequence((seed, step, rank())).generate_state(1, np.uint64)[0])
