"""What a run does about its precision before its first step."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from nlnet.config import RunConfig
from nlnet.distributed.ranks import world_size
from nlnet.model.build import build_model
from nlnet.model.speed.lean import lean_convolutions
from nlnet.numerics.precision import choose_precision
from nlnet.numerics.trust import check_network, checked_dtype, replace_convolutions
from nlnet.trainer.build import build_precision


def trust_convolutions(
    run: RunConfig, model: nn.Module, device: torch.device, say: Callable[[str], None]
) -> None:
    """Compare the convolutions of a run with float64 and replace those whose kernel is wrong.

    A run in float32 is checked where float32 is TF32. `say` gets the precision that `auto` chose,
    and a line about each convolution that is replaced. Raises UserError if no form of a
    convolution is right.
    """
    precision = build_precision(run.trainer, device)
    for line in describe_precision(run, device):
        say(line)
    dtype = checked_dtype(device, precision)
    if dtype is None:
        return
    clip = run.data.clip
    batch = max(run.data.batch_size // run.trainer.accumulate // world_size(), 1)
    convolutions, verdicts = check_network(
        partial(build_model, run.model, num_classes=2),
        (batch, 3, clip.num_frames, clip.crop_size, clip.crop_size),
        device=device,
        dtype=dtype,
        channels_last=run.trainer.channels_last,
        lean=lean_convolutions(model) if device.type == "cpu" and not run.trainer.compile else (),
    )
    remedy = "use trainer.precision=fp32" if precision else "use trainer.tf32=false"
    for line in replace_convolutions(model, convolutions, verdicts, remedy=remedy):
        say(line)


def describe_precision(run: RunConfig, device: torch.device) -> list[str]:
    """A line about the precision that `auto` chose, and why."""
    if run.trainer.precision != "auto":
        return []
    dtype, reason = choose_precision(device)
    return [f"trainer.precision=auto: {'fp32' if dtype is None else 'bf16'}; {reason}"]
