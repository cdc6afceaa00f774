"""Forward and backward passes of non-local blocks at the sizes of res3 and res4."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from nlnet.bench.gpu.agreement import LossAndGradients, check_agreement
from nlnet.bench.gpu.measure import Step, measure_step
from nlnet.bench.gpu.plan import GpuPlan
from nlnet.bench.gpu.rows import GpuRow, filled_row
from nlnet.bench.naive import NAIVE
from nlnet.bench.operations.calls import FORMS
from nlnet.bench.operations.shapes import Shape
from nlnet.bench.peer import INSTANTIATIONS
from nlnet.config import TrainerConfig
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.trainer.build import build_cuda_arithmetic, build_precision
from nlnet.trainer.cuda_arithmetic import cuda_arithmetic
from nlnet.trainer.step import autocast


def block_forms(pairwise: str) -> list[tuple[str, bool]]:
    """(form, whether it is compiled) of a function; ratios are against the first one."""
    if pairwise in INSTANTIATIONS:
        forms = ("pytorchvideo", "naive", "ours")
        return [*((form, False) for form in forms), ("pytorchvideo", True), ("ours", True)]
    return [("naive", False), ("ours", False)] if pairwise in NAIVE else [("ours", False)]


def measure_blocks(
    shape: Shape, cfg: TrainerConfig, plan: GpuPlan, device: torch.device
) -> Iterator[GpuRow]:
    """Measure every pairwise function in every form."""
    precision = build_precision(replace(cfg, precision=plan.precision), device)
    build_form = partial(_build_block, shape, plan.batch, device, precision)
    for pairwise in PAIRWISE:
        peer = None
        for form, compiled in block_forms(pairwise):
            with build_cuda_arithmetic(cfg) if form == "ours" else nullcontext():
                build = partial(build_form, form, pairwise, compiled=compiled)
                measured = measure_step(build, plan, device)
            shown = "nlnet" if form == "ours" else form
            name = f"{pairwise}: {shown}{', compiled' if compiled else ''}"
            row = GpuRow("block", str(shape), name, plan.precision, plan.batch)
            row = filled_row(row, measured, peer=peer)
            peer = peer or row
            yield row


def _build_block(
    shape: Shape,
    batch: int,
    device: torch.device,
    precision: torch.dtype | None,
    form: str,
    pairwise: str,
    *,
    compiled: bool,
) -> Step:
    """A forward and backward pass, after it was compared with float32.

    Blocks of nlnet get the map in channels_last_3d and the others in the contiguous format.
    """
    torch.manual_seed(0)
    block = FORMS[form](pairwise, shape).to(device)
    size = (batch, shape.channels, shape.frames, shape.side, shape.side)
    video = torch.randn(size, device=device, dtype=precision)
    if isinstance(block, NonLocalBlock):
        video = video.contiguous(memory_format=torch.channels_last_3d)
    cotangent = torch.randn_like(video)
    network = cast(nn.Module, torch.compile(block, dynamic=False)) if compiled else block
    name = f"{pairwise}: {form}"
    with cuda_arithmetic(cudnn_benchmark=False, tf32=False):
        exact = _pass(block, block, video.float(), cotangent.float(), None)
    check_agreement(
        name, lambda: exact, partial(_pass, network, block, video, cotangent, precision)
    )
    return partial(_pass, network, block, video, cotangent, precision)


def _pass(
    network: nn.Module,
    block: nn.Module,
    video: Tensor,
    cotangent: Tensor,
    precision: torch.dtype | None,
) -> LossAndGradients:
    """The mean square of the output, and the gradients of the map and of the parameters."""
    inputs = [video.requires_grad_(), *block.parameters()]
    with autocast(video.device, precision):
        z = network(video)
    gradients = torch.autograd.grad(z, inputs, cotangent.to(z.dtype), allow_unused=True)
    return z.detach().float().square().mean(), [g for g in gradients if g is not None]
