"""Prepare a built model for training. The steps, in this order:

1. `freeze_parts`: before the optimizer is built, which gets only the parameters that learn.
2. Memory saving (`save_memory`, an argument): it replaces modules, so it comes before everything
   that keeps references to modules or traces them.
3. The model moves to its device and the optimizer is built (by the caller, as is resuming).
4. The memory format, after a checkpoint was loaded: the layout of the weights is set once.
5. `torch.compile`: it traces the final modules, in their final memory format.
6. DistributedDataParallel: it is the outermost module, because a step calls its `no_sync`.

`prepare_model` does 1 and 2, `wrap_for_training` does 4 to 6. In place of them,
`shard_for_training` (nlnet/trainer/fsdp.py) divides the parameters among the ranks.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
    bf16_compress_hook,
    fp16_compress_hook,
)
from torch.nn.parallel import DistributedDataParallel

from nlnet.distributed.ranks import world_size
from nlnet.errors import ArgumentError, choose
from nlnet.trainer.sharding import ShardedNetwork

Model = TypeVar("Model", bound=nn.Module)


def prepare_model(
    model: Model, *, freeze: Sequence[str], save_memory: Callable[[Model], None]
) -> None:
    """Freeze parts of a model, then replace modules by forms that save memory.

    Args:
        model: is changed in place; the names of its parameters stay
        freeze: names of parts, as in `freeze_parts`
        save_memory: replaces modules of the model

    Raises:
        ArgumentError: a name is not the name of a part.
    """
    freeze_parts(model, freeze)
    save_memory(model)


# How DDP sends gradients: as they are, or rounded to half the bytes.
COMPRESSIONS: dict[str, Callable[..., torch.futures.Future[Tensor]] | None] = {
    "none": None,
    "bf16": bf16_compress_hook,
    "fp16": fp16_compress_hook,
}


# The modes of torch.compile.
COMPILE_MODES = ("default", "max-autotune-no-cudagraphs", "reduce-overhead", "max-autotune")


def wrap_for_training(
    model: nn.Module,
    *,
    device: torch.device,
    channels_last: bool = False,
    compiled: bool = False,
    compile_mode: str = "default",
    gradient_compression: str = "none",
    static_graph: bool = False,
) -> nn.Module:
    """Return the network that training calls: compiled, and wrapped if there are several ranks.

    It shares its parameters with the model, which evaluation and checkpoints use.

    Args:
        model: already on the device
        device: of this rank
        channels_last: store the weights in the channels_last_3d format
        compiled: use torch.compile, which makes a program for each size of clips
        compile_mode: one of COMPILE_MODES
        gradient_compression: a name in COMPRESSIONS; for several ranks
        static_graph: DDP expects the same graph in every step; for several ranks

    Raises:
        ArgumentError: the name is unknown.
    """
    hook = choose("gradient_compression", gradient_compression, COMPRESSIONS)
    if channels_last:
        model.to(memory_format=torch.channels_last_3d)
    network = model
    if compiled:
        mode = choose("compile_mode", compile_mode, {mode: mode for mode in COMPILE_MODES})
        network = cast(nn.Module, torch.compile(model, dynamic=False, mode=mode))
    if world_size() > 1:
        devices = [device] if device.type == "cuda" else None
        # The weight of a 1x1x1 kernel has the same layout in both memory formats, but other
        # strides; DDP warns about the strides of its gradient.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        network = DistributedDataParallel(
            network,
            device_ids=devices,
            gradient_as_bucket_view=True,
            static_graph=static_graph,
        )
        if hook is not None:
            network.register_comm_hook(None, hook)
    return network


def freeze_parts(model: nn.Module, freeze: Sequence[str]) -> None:
    """Stop the training of parts of a model: their parameters get no gradient.

    `set_training_mode` keeps the same parts in eval mode, so that their batch norm statistics do
    not change either.

    Args:
        model: is changed in place
        freeze: dotted paths of modules in the model or in its backbone (`conv1`, `res3.block0`,
            `head`)

    Raises:
        ArgumentError: a name is not the path of a module.
    """
    for part in _parts(model, freeze):
        part.requires_grad_(False)


def set_training_mode(network: nn.Module, model: nn.Module, freeze: Sequence[str]) -> None:
    """Put a network in training mode and its frozen parts in eval mode.

    Use it wherever training would call `network.train()`.

    Args:
        network: the model itself, or the model compiled, wrapped or sharded
        model: the bare model
        freeze: names of parts, as in `freeze_parts`
    """
    network.train()
    bare = network.network if isinstance(network, ShardedNetwork) else model
    for part in _parts(bare, freeze):
        part.eval()


def _parts(model: nn.Module, names: Sequence[str]) -> Iterator[nn.Module]:
    modules = dict(model.named_modules())
    for name in names:
        path = name if name in modules else f"backbone.{name}"
        if not name or path not in modules:
            paths = [path.removeprefix("backbone.") for path in modules if path != "backbone"]
            known = ", ".join(path for path in paths if path and "." not in path)
            raise ArgumentError(f"freeze={name!r} is not a part of the network; there are {known}")
        yield modules[path]
