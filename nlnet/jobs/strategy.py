"""How the ranks of a run share the training: each has the whole network, or a part of it."""

import torch
from torch import nn

from nlnet.checks import one_of
from nlnet.config import RunConfig
from nlnet.distributed.ranks import world_size
from nlnet.errors import UsageError
from nlnet.model.classifier import VideoClassifier
from nlnet.model.resnet3d import STAGES
from nlnet.trainer.prepare import COMPRESSIONS, wrap_for_training
from nlnet.trainer.state import TrainState

STRATEGIES = {
    "ddp": "every rank has the whole network",
    "fsdp": "every rank has a part of each parameter, and gathers a block while it computes it",
}


def check_strategy(run: RunConfig) -> None:
    """Raise UsageError for an unknown name, and for settings that a sharded network cannot have."""
    one_of("dist.gradient_compression", run.dist.gradient_compression, COMPRESSIONS)
    one_of("dist.strategy", run.dist.strategy, STRATEGIES)
    if run.dist.strategy == "ddp":
        return
    if run.trainer.compile:
        raise UsageError(
            "trainer.compile=true cannot trace the network of dist.strategy=fsdp; set"
            " trainer.compile=false or dist.strategy=ddp"
        )
    if run.dist.static_graph:
        raise UsageError(
            "dist.static_graph=true is for dist.strategy=ddp; set dist.static_graph=false or"
            " dist.strategy=ddp"
        )
    if run.trainer.precision == "fp16":
        raise UsageError(
            "trainer.precision=fp16 scales the loss, which dist.strategy=fsdp does not support; set"
            " trainer.precision=bf16 or dist.strategy=ddp"
        )


def is_sharded(run: RunConfig) -> bool:
    """Whether each rank has a part of the network; a single rank has all of it."""
    return run.dist.strategy == "fsdp" and world_size() > 1


def describe_strategy(run: RunConfig) -> list[str]:
    """A log line about a network that is divided among the ranks."""
    if is_sharded(run):
        return [f"each of the {world_size()} ranks has a part of the network, dist.strategy=fsdp"]
    if run.dist.strategy == "fsdp":
        return ["dist.strategy=fsdp divides the network among ranks; the only one has all of it"]
    return []


def start_device(run: RunConfig, device: torch.device) -> torch.device:
    """Where the state is built and loaded: a GPU may be too small for the whole network."""
    return torch.device("cpu") if is_sharded(run) else device


def distribute(run: RunConfig, state: TrainState, device: torch.device) -> nn.Module:
    """Return the network that training calls, on `device`; the state is loaded before."""
    if not is_sharded(run):
        return wrap_for_training(
            state.model,
            device=device,
            channels_last=run.trainer.channels_last,
            compiled=run.trainer.compile,
            compile_mode=run.trainer.compile_mode,
            gradient_compression=run.dist.gradient_compression,
            static_graph=run.dist.static_graph,
        )
    from nlnet.trainer.fsdp import shard_for_training  # takes half a second

    assert isinstance(state.model, VideoClassifier)
    stages = [state.model.backbone.get_submodule(stage) for stage in STAGES]
    return shard_for_training(
        state,
        [block for stage in stages for block in stage.children()],
        device=device,
        gradient_compression=run.dist.gradient_compression,
    )
