"""Training steps and evaluations of whole networks, of nlnet and of pytorchvideo."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from nlnet.bench.gpu.agreement import LossAndGradients, check_agreement
from nlnet.bench.gpu.measure import Step, measure_step
from nlnet.bench.gpu.peaks import peak_flops
from nlnet.bench.gpu.plan import GpuPlan, Network
from nlnet.bench.gpu.rows import GpuRow, filled_row
from nlnet.bench.steps.arithmetic import arithmetic_of
from nlnet.bench.steps.calls import Prepared, prepare_contender
from nlnet.bench.steps.contenders import Contender
from nlnet.bench.steps.costs import clip_operations
from nlnet.cli.compose import compose_run
from nlnet.config import BenchmarkConfig, RunConfig, TrainerConfig
from nlnet.trainer.build import build_optimizer
from nlnet.trainer.cuda_arithmetic import cuda_arithmetic
from nlnet.trainer.step import autocast

PEER, OURS = "pytorchvideo", "nlnet"
# With dropout, two number types would draw different features.
WITHOUT_DROPOUT = "model.dropout=0"


def network_contenders(cfg: TrainerConfig, precision: str) -> list[Contender]:
    """The forms of a network; ratios are against the first one of training and of evaluation."""
    ours = replace(cfg, precision=precision, compile=False)
    return [
        Contender(PEER, True, precision, None),
        Contender(f"{PEER}, in float32", True, "fp32", None),
        Contender(f"{PEER}, compiled", True, precision, None, compiled=True),
        Contender(OURS, True, precision, ours),
        Contender(f"{OURS}, compiled", True, precision, replace(ours, compile=True)),
        Contender(PEER, False, precision, None),
        Contender(OURS, False, precision, ours),
    ]


def measure_network(
    network: Network, run: BenchmarkConfig, plan: GpuPlan, device: torch.device, device_name: str
) -> Iterator[GpuRow]:
    """Measure each contender of a network, one after another."""
    composed = compose_run(network.experiment, *network.words, WITHOUT_DROPOUT)
    composed = replace(composed, trainer=run.trainer)
    operations = clip_operations(composed)
    batch = run.batch or network.batch
    peers: dict[bool, GpuRow] = {}
    for contender in network_contenders(run.trainer, plan.precision):
        with arithmetic_of(contender):
            build = partial(_build_step, contender, composed, batch, device)
            measured = measure_step(build, plan, device)
        part = "training" if contender.training else "evaluation"
        peak = peak_flops(device_name, contender.precision)
        row = filled_row(
            GpuRow(part, network.name, contender.name, contender.precision, batch),
            measured,
            peer=peers.get(contender.training),
            peak_share=operations[part] / peak if peak else None,
        )
        peers.setdefault(contender.training, row)
        yield row


def _build_step(contender: Contender, run: RunConfig, batch: int, device: torch.device) -> Step:
    """A training step or an evaluation, after it was compared with float32."""
    prepared = prepare_contender(contender, run, batch, device)
    if not contender.training:
        return partial(_evaluate, prepared)
    check_agreement(
        contender.name,
        partial(_in_float32, prepared),
        partial(_gradients, prepared.network, prepared, prepared.precision),
    )
    return partial(_train, prepared, build_optimizer(run.optim, prepared.model))


def _in_float32(prepared: Prepared) -> LossAndGradients:
    with cuda_arithmetic(cudnn_benchmark=False, tf32=False):
        return _gradients(prepared.model, prepared, None)


def _gradients(
    network: nn.Module, prepared: Prepared, precision: torch.dtype | None
) -> LossAndGradients:
    parameters = list(prepared.model.parameters())
    with autocast(prepared.video.device, precision):
        logits = network(prepared.video)
    loss = F.cross_entropy(logits.float(), prepared.label)
    return loss.detach(), torch.autograd.grad(loss, parameters)


def _train(prepared: Prepared, optimizer: torch.optim.Optimizer) -> None:
    """One step. It reads its loss before the update, as nlnet's loop does."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(prepared.video.device, prepared.precision):
        logits = prepared.network(prepared.video)
    loss = F.cross_entropy(logits.float(), prepared.label)
    loss.backward()
    loss.item()
    optimizer.step()


@torch.inference_mode()
def _evaluate(prepared: Prepared) -> None:
    prepared.model.eval()
    with autocast(prepared.video.device, prepared.precision):
        prepared.model(prepared.video)
