"""Train small networks with DDP and with fully_shard, in the same ranks: a program for a test.

    python two_strategies.py OUT_DIR CASE...

Writes OUT_DIR/found.json: how far the results of each case are from one another.
"""

import atexit
import copy
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny_run import check_threads  # in the same folder
from torch import Tensor, nn

from nlnet.checkpoint import Provenance
from nlnet.clip import ClipBatch
from nlnet.config import NonLocalConfig, ResNetConfig
from nlnet.distributed.ranks import is_main, process_group, rank
from nlnet.model.build import build_model
from nlnet.model.resnet3d import STAGES
from nlnet.model.speed.checkpointing import save_memory
from nlnet.trainer.averaging import average_weights
from nlnet.trainer.fsdp import shard_for_training
from nlnet.trainer.preemption import StopRequest
from nlnet.trainer.prepare import prepare_model, set_training_mode, wrap_for_training
from nlnet.trainer.schedule import cosine_schedule
from nlnet.trainer.settings import LoopSettings
from nlnet.trainer.state import TrainState
from nlnet.trainer.step import train_step

CPU = torch.device("cpu")
STEPS = 2
CASES: dict[str, dict[str, Any]] = {
    "plain": {"lean": False, "compression": "fp16"},
    "lean": {"channels_last": True, "clip": 0.1, "ema": 0.5},
    "checkpointed": {
        "checkpoint_stages": ["res3", "res4"],
        "accumulate": 2,
        "gamma": True,
        "norm": "sync",
    },
    "frozen": {
        "freeze": ["conv1", "norm1", "res2", "res3.nl0"],
        "optimizer": "adamw",
        "compression": "bf16",
        "precision": torch.bfloat16,
    },
}


def make_state(case: dict[str, Any]) -> TrainState:
    """A network of 5 classes, so that a rank has fewer rows of the classifier than the other."""
    torch.manual_seed(0)
    blocks = NonLocalConfig(res3=[0], zero_init=False, gamma=case.get("gamma", False))
    cfg = ResNetConfig(depth=14, width=4, norm=case.get("norm", "batch"), non_local=blocks)
    model = build_model(cfg, 5)
    stages = case.get("checkpoint_stages", [])
    memory = partial(save_memory, lean=case.get("lean", True), checkpoint_stages=stages)
    prepare_model(model, freeze=case.get("freeze", []), save_memory=memory)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer = torch.optim.SGD(learning, lr=0.1, momentum=0.9)
    if case.get("optimizer") == "adamw":
        optimizer = torch.optim.AdamW(learning, lr=0.01, eps=1e-2)  # eps: no step along noise
    average = None
    if "ema" in case:
        average = average_weights(model, case["ema"], channels_last=False)
    return TrainState(model, optimizer, Provenance(), average=average)


def clips(step: int) -> ClipBatch:
    """Four clips of this rank, another four in each step."""
    generator = torch.Generator().manual_seed(10 * step + rank())
    video = torch.randint(0, 256, (4, 3, 4, 32, 32), generator=generator, dtype=torch.uint8)
    label = torch.randint(5, (4,), generator=generator)
    return ClipBatch(video, label, label, ())


def train(state: TrainState, network: nn.Module, case: dict[str, Any]) -> list[float]:
    """Make the steps. Returns loss and norm of the gradient of each."""
    settings = LoopSettings(
        device=CPU,
        seed=0,
        total_steps=STEPS,
        steps_per_epoch=STEPS,
        lr=0.1,
        schedule=cosine_schedule(STEPS, 0.0),
        accumulate=case.get("accumulate", 1),
        clip_grad_norm=case.get("clip"),
        channels_last=case.get("channels_last", False),
        precision=case.get("precision"),
        freeze=tuple(case.get("freeze", ())),
    )
    set_training_mode(network, state.model, settings.freeze)
    said = []
    with StopRequest(None) as stop:
        for step in range(STEPS):
            whole, size = clips(step), 4 // settings.accumulate
            parts = [
                ClipBatch(video, label, label, ())
                for video, label in zip(
                    whole.video.split(size), whole.label.split(size), strict=True
                )
            ]
            sums, norm = train_step(state, network, settings, parts, lr=0.05, stop=stop)
            state.update_average()
            state.progress.global_step += 1
            said += [sums.loss, norm]
    return said


def shard(state: TrainState, **words: str) -> nn.Module:
    stages = [state.model.backbone.get_submodule(stage) for stage in STAGES]
    units = [block for stage in stages for block in stage.children()]
    return shard_for_training(state, units, device=CPU, **words)


def tensors(parts: Any) -> Iterator[Tensor]:
    """The tensors and the floats of containers, in one order."""
    if isinstance(parts, Tensor):
        yield parts
    elif isinstance(parts, dict):
        for key in sorted(parts, key=str):
            yield from tensors(parts[key])
    elif isinstance(parts, list | tuple):
        for part in parts:
            yield from tensors(part)
    elif isinstance(parts, float):
        yield torch.tensor(parts, dtype=torch.float64)


def distance(one: Any, other: Any) -> float:
    """The norm of the difference of all tensors, as a share of the norm of all tensors."""
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    assert pairs and all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    square = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return (square / sum(float(a.double().square().sum()) for a, _ in pairs)) ** 0.5


def parts_of(state: TrainState) -> dict[str, Any]:
    """A copy of what a checkpoint holds; on rank 0."""
    saved = state.checkpoint()
    assert saved.training is not None
    parts = {"model": saved.model, "optimizer": saved.training.optimizer}
    if saved.average is not None:
        parts["average"] = saved.average
    return copy.deepcopy(parts)


def compare(case: dict[str, Any]) -> dict[str, float]:
    """Train with DDP and with fully_shard; divide the result of DDP, and gather it again."""
    words = {"gradient_compression": case.get("compression", "none")}
    one, other = make_state(case), make_state(case)
    layout = {"channels_last": case.get("channels_last", False)}
    said = train(one, wrap_for_training(one.model, device=CPU, **layout, **words), case)
    said_too = train(other, shard(other, **words), case)
    found = {"losses and norms": distance(said, said_too)}
    whole, gathered = parts_of(one), parts_of(other)
    if is_main():
        found |= {name: distance(whole[name], gathered[name]) for name in whole}
    before = copy.deepcopy(one.model.state_dict())
    video = clips(0).video
    logits = one.model.eval()(video).detach()
    shard(one)
    again = parts_of(one)
    if is_main():
        found["divided"] = distance(whole, again)
    with one.whole(one.model), torch.inference_mode():
        found["whole"] = distance(before, dict(one.model.state_dict()))
        if is_main():  # alone: the other rank does not take part
            found["logits"] = distance(logits, one.model(video))
    return found


def main(out_dir: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    with process_group(CPU):
        found = {name: compare(CASES[name]) for name in names}
        if is_main():
            (out_dir / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    atexit.register(check_threads)
    main(Path(sys.argv[1]), sys.argv[2:])
