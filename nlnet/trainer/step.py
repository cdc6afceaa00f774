"""One step: forward and backward pass of each micro-batch on each rank, then the update."""

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
from nlnet.distributed.ranks import all_sum, is_main, rank
from nlnet.errors import ArgumentError
from nlnet.trainer.buffers import copy_buffers, restore_buffers
from nlnet.trainer.metrics import best_classes, is_right
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.sharding import ShardedNetwork
from nlnet.trainer.state import TrainState


class StepSums(NamedTuple):
    """Sums over the clips of a step on all ranks."""

    loss: float
    top1: float  # hits
    top5: float
    clips: float
    bad: float  # clips that could not be read and were replaced
    stop: float  # ranks on which a stop is due
    faults: float  # ranks on which the loss or its gradient is not finite
    save: float  # 1 if rank 0 asked for a checkpoint


def train_step(
    state: TrainState,
    network: nn.Module,
    settings: LoopSettings,
    micro_batches: Sequence[ClipBatch],
    *,
    lr: float,
    stop: StopRequest,
    save: bool = False,
) -> tuple[StepSums, float]:
    """Update the weights once. Returns the sums over all ranks and the norm of the gradient.

    `save` of rank 0 asks all ranks for a checkpoint; that of other ranks does not count.

    If the sums have faults, every rank skips the update: weights, state of the optimizer and batch
    norm statistics stay as they were.
    """
    optimizer, scaler = state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    torch.manual_seed(step_seed(settings.seed, state.progress.global_step))
    buffers = copy_buffers(state.model)
    local = accumulate_gradients(network, micro_batches, settings, scaler)
    if state.sharding is not None:
        state.sharding.take_gradients()
    scaler.unscale_(optimizer)
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    grads = [p.grad for p in learning if p.grad is not None]
    if state.sharding is None:
        grad_norm = get_total_norm(grads)
    else:
        grad_norm = state.sharding.gradient_norm(grads)
    if settings.clip_grad_norm is not None:
        clip_grads_with_norm_(learning, settings.clip_grad_norm, grad_norm)

    bad = sum(len(batch.failures) for batch in micro_batches)
    *mine, norm = torch.cat([local, grad_norm.to(local).view(1)]).tolist()  # one wait for the GPU
    fault = not (math.isfinite(mine[0]) and (math.isfinite(norm) or _is_overflow(scaler)))
    signals = [stop.is_due, fault, save and is_main()]
    row = torch.tensor([*mine, bad, *signals], dtype=torch.float64)
    sums = StepSums(*all_sum(row).tolist())
    if sums.faults:
        restore_buffers(state.model, buffers)
    elif math.isfinite(norm):  # else the scale is too large; fused SGD would update its momentum
        scaler.step(optimizer)
    scaler.update()
    return sums, norm


def _is_overflow(scaler: GradScaler) -> bool:
    """Whether the scale of the loss can be why a gradient is not finite.

    The scaler then skips the step and lowers its scale. Below 1 the gradient itself is too large.
    """
    return scaler.is_enabled() and scaler.get_scale() >= 1


def accumulate_gradients(
    network: nn.Module,
    micro_batches: Sequence[ClipBatch],
    settings: LoopSettings,
    scaler: GradScaler,
) -> Tensor:
    """Accumulate the gradient of the mean loss over all clips of the micro-batches.

    The gradients of the ranks are averaged, so each rank must have the same number of clips.

    Returns:
        sums over the clips, (4,) float64: loss, top-1 hits, top-5 hits, number of clips
    """
    clips = sum(len(batch.label) for batch in micro_batches)
    sums = torch.zeros(4, dtype=torch.float64, device=settings.device)
    for i, batch in enumerate(micro_batches):
        batch = place(batch, settings.device, settings.channels_last)
        share = len(batch.label) / clips
        is_last = i + 1 == len(micro_batches)
        with nullcontext() if is_last else _unsynced(network):
            with autocast(settings.device, settings.precision):
                logits = network(batch.video)
            loss = classification_loss(
                logits.float(),
                batch.label,
                settings.label_smoothing,
                one_label=settings.one_label,
                weights=settings.class_weights,
            )
            scaler.scale(loss * share).backward()
        right = is_right(best_classes(logits.detach(), 5), batch.label)
        hits = right[:, 0].sum(), right.any(1).sum()
        sums += torch.stack([loss.detach() * len(right), *hits, loss.new_full((), len(right))])
    return sums


def _unsynced(network: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which the gradients are not averaged over the ranks."""
    if isinstance(network, DistributedDataParallel | ShardedNetwork):
        return network.no_sync()
    return nullcontext()


def classification_loss(
    logits: Tensor,
    label: Tensor,
    smoothing: float,
    *,
    one_label: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean loss over the clips.

    It is the cross-entropy for labels (B,), and for soft labels (B, K) with `one_label`. It is the
    binary cross-entropy, averaged over the classes, for several labels (B, K). The mean with
    `weights` (K,) is divided by the number of clips, not by the sum of their weights, so that
    micro-batches give the gradient of one large batch.

    Raises ArgumentError if smoothing is used with several labels per video.
    """
    if label.ndim == 1 or one_label:
        if weights is None:
            return F.cross_entropy(logits, label, label_smoothing=smoothing)
        total = F.cross_entropy(
            logits, label, weight=weights, label_smoothing=smoothing, reduction="sum"
        )
        return total / len(label)
    if smoothing:
        raise ArgumentError(f"label_smoothing={smoothing} is for one label per video; set it to 0")
    return F.binary_cross_entropy_with_logits(logits, label, weight=weights)


def place(batch: ClipBatch, device: torch.device, channels_last: bool) -> ClipBatch:
    """Copy a batch to a device, in the memory format of the convolutions."""
    batch = batch.to(device)
    if not channels_last:
        return batch
    return batch._replace(video=batch.video.contiguous(memory_format=torch.channels_last_3d))


def autocast(device: torch.device, precision: torch.dtype | None) -> torch.autocast:
    """Return torch's autocast context for a precision; None computes in float32."""
    return torch.autocast(device.type, dtype=precision, enabled=precision is not None)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of all random numbers of this rank in a step."""
    return int(np.random.SeedSequence((seed, step, rank())).generate_state(1, np.uint64)[0])
