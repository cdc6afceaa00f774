"""What is checked before a step is timed: the device's kernels, the loss and the gradients."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.bench.peer import build_peer
from nlnet.bench.steps.contenders import Contender
from nlnet.config import RunConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.speed.checkpointing import save_memory
from nlnet.model.speed.lean import lean_convolutions
from nlnet.numerics.convolutions import Convolution
from nlnet.numerics.trust import Verdict, check_network, checked_dtype, replace_convolutions
from nlnet.trainer.build import build_cuda_arithmetic, build_precision
from nlnet.trainer.step import autocast

NUM_CLASSES = 400
LARGEST_DIFFERENCE = 0.05  # of a loss in reduced precision from that in float32, relative


def contender_builder(contender: Contender, run: RunConfig) -> Callable[[], nn.Module]:
    """What builds the network of a contender: nlnet's or the peer's."""
    if contender.trainer is None:
        return partial(build_peer, run, NUM_CLASSES)
    return partial(build_model, run.model, NUM_CLASSES)


def arithmetic_of(contender: Contender) -> AbstractContextManager[None]:
    """The settings of a GPU that a contender has: its own, or torch's defaults for the peer."""
    return nullcontext() if contender.trainer is None else build_cuda_arithmetic(contender.trainer)


def check_contender(
    contender: Contender, run: RunConfig, batch: int, device: torch.device
) -> tuple[Mapping[Convolution, Sequence[str]], dict[Convolution, Verdict]]:
    """Check the convolutions of a contender that trains in reduced precision.

    Returns:
        the names of the modules of each convolution, and the verdicts; both are empty in float32,
        unless that is TF32
    """
    cfg = contender.trainer or replace(run.trainer, channels_last=False)
    precision = build_precision(replace(cfg, precision=contender.precision), device)
    dtype = checked_dtype(device, precision)
    if dtype is None or not contender.training:
        return {}, {}
    lean: set[str] = set()
    if device.type == "cpu" and contender.trainer is not None and not cfg.compile:
        with torch.device("meta"):
            model = build_model(run.model, NUM_CLASSES)
        save_memory(model, lean=cfg.lean, checkpoint_stages=())
        lean = lean_convolutions(model)
    clip = run.data.clip
    size = (batch, 3, clip.num_frames, clip.crop_size, clip.crop_size)
    return check_network(
        contender_builder(contender, run),
        size,
        device=device,
        dtype=dtype,
        channels_last=cfg.channels_last,
        lean=lean,
    )


def trust_contender(
    contender: Contender, model: nn.Module, run: RunConfig, batch: int, device: torch.device
) -> None:
    """Replace the wrong convolutions of nlnet's network; those of the peer are only named.

    Raises UserError if no form of a convolution is right.
    """
    found, verdicts = check_contender(contender, run, batch, device)
    if contender.trainer is None:
        wrong = [conv for conv, verdict in verdicts.items() if verdict.form != "plain"]
        lines = [f"{', '.join(found[conv])}: the kernel is wrong here" for conv in wrong]
    else:
        remedy = "its step cannot be timed"
        lines = replace_convolutions(model, found, verdicts, remedy=remedy)
    for line in lines:
        print(f"{contender.name}: {line}", file=sys.stderr)


def check_step(
    name: str, model: nn.Module, video: Tensor, label: Tensor, precision: torch.dtype | None
) -> None:
    """Compare the loss with float32, and look for numbers that are not finite.

    Raises UserError if a gradient is not finite, or if the loss is not that of float32.
    """
    with torch.no_grad():
        torch.manual_seed(0)  # of the dropout
        exact = F.cross_entropy(model(video).float(), label).item()
    torch.manual_seed(0)
    with autocast(video.device, precision):
        logits = model(video)
    loss = F.cross_entropy(logits.float(), label)
    loss.backward()
    finite = all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad(set_to_none=True)
    if not finite or not math.isclose(loss.item(), exact, rel_tol=LARGEST_DIFFERENCE):
        found = f"{loss.item():.4g}" if finite else "not finite, or its gradients are not"
        raise UserError(f"{name}: the loss is {found}; in float32 it is {exact:.4g}")
