"""One training step or one evaluation of a contender, as a function that times its phases."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlnet.bench.peer import build_peer
from nlnet.bench.steps.arithmetic import NUM_CLASSES, check_step, trust_contender
from nlnet.bench.steps.contenders import Contender
from nlnet.bench.timing import now
from nlnet.config import BenchmarkConfig, RunConfig
from nlnet.model.build import build_model
from nlnet.model.speed.checkpointing import save_memory
from nlnet.model.speed.folding import fold_norms
from nlnet.trainer.build import build_optimizer, build_precision
from nlnet.trainer.prepare import wrap_for_training
from nlnet.trainer.step import autocast

PHASES = ("forward", "backward", "optimizer")

Phases = dict[str, float]  # seconds of each phase


class Prepared(NamedTuple):
    """A contender on its device, with the clips that it gets."""

    model: nn.Module
    network: nn.Module  # the model, or the compiled form of it
    video: Tensor
    label: Tensor
    precision: torch.dtype | None


def prepare_contender(
    contender: Contender, run: RunConfig, batch: int, device: torch.device
) -> Prepared:
    """Build a contender's network; nlnet's convolutions are replaced where they are wrong.

    The network of nlnet gets uint8 clips, as a loader gives them. The peer gets normalized float
    clips.
    """
    torch.manual_seed(0)
    clip = run.data.clip
    size = (batch, 3, clip.num_frames, clip.crop_size, clip.crop_size)
    video = torch.randint(0, 256, size, dtype=torch.uint8).to(device)
    label = torch.randint(0, NUM_CLASSES, (batch,)).to(device)
    ours, cfg = build_model(run.model, NUM_CLASSES), contender.trainer
    model: nn.Module = ours
    if cfg is None:
        model = build_peer(run, NUM_CLASSES)
        assert count(model) == count(ours), "the two networks differ in their parameters"
        video = video.float().sub_(128).div_(64)
        cfg = replace(run.trainer, channels_last=False, compile=contender.compiled)
    elif contender.training:
        save_memory(ours, lean=cfg.lean, checkpoint_stages=cfg.checkpoint_stages)
    elif cfg.fold_norms:
        model = fold_norms(ours)
    del ours
    model.to(device)
    if cfg.channels_last:
        video = video.contiguous(memory_format=torch.channels_last_3d)
    precision = build_precision(replace(cfg, precision=contender.precision), device)
    trust_contender(contender, model, run, batch, device)
    network = wrap_for_training(
        model,
        device=device,
        channels_last=cfg.channels_last,
        compiled=cfg.compile,
        compile_mode=cfg.compile_mode,
    )
    return Prepared(model, network, video, label, precision)


def build_call(
    contender: Contender, run: BenchmarkConfig, batch: int, device: torch.device
) -> Callable[[], Phases]:
    """Build a contender's network and return a function that runs one step or evaluation."""
    model, network, video, label, precision = prepare_contender(contender, run, batch, device)
    if not contender.training:
        return lambda: evaluation(model.eval(), video, precision)
    if contender.trainer is not None:
        check_step(contender.name, model, video, label, precision)
    optimizer = build_optimizer(run.optim, model)
    return lambda: _training_step(network, optimizer, video, label, precision)


def count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    video: Tensor,
    label: Tensor,
    precision: torch.dtype | None,
) -> Phases:
    """Run one training step without a data loader and return the seconds of its phases."""
    times = [now()]
    optimizer.zero_grad(set_to_none=True)
    with autocast(video.device, precision):
        logits = network(video)
    loss = F.cross_entropy(logits.float(), label)
    times.append(now())
    loss.backward()
    times.append(now())
    optimizer.step()
    times.append(now())
    return {name: times[i + 1] - times[i] for i, name in enumerate(PHASES)}


@torch.inference_mode()
def evaluation(model: nn.Module, video: Tensor, precision: torch.dtype | None) -> Phases:
    """Run one evaluation and return its seconds."""
    start = now()
    with autocast(video.device, precision):
        model(video)
    return {"forward": now() - start}
