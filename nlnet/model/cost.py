"""The cost of a network, stage by stage: sizes, parameters, multiply-adds, activation memory."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef

from nlnet.model.classifier import VideoClassifier
from nlnet.model.non_local.tokens import Operation, Pointwise

PARTS = ("conv1", "pool1", "res2", "pool2", "res3", "res4", "res5", "head")


class ClipSizeError(ValueError):
    """Clips are too short or too small for a network: a pool or window is larger than its input."""


@dataclass
class Stage:
    """One row of the table; the counts are for one clip."""

    name: str
    output: tuple[int, ...] = ()  # (C, T, H, W)
    parameters: int = 0
    multiply_adds: int = 0
    activation_bytes: int = 0  # kept for the backward pass
    non_local: list[str] = field(default_factory=list)  # names of the non-local blocks


def describe(build: Callable[[], VideoClassifier], num_frames: int, crop_size: int) -> list[Stage]:
    """Trace one clip of the given size with fake tensors and count the cost of each stage.

    The multiply-adds are those of convolutions, linear maps and pairwise sums by their definition,
    N M (d + e), as in published tables: they do not depend on the kernels that compute them. The
    memory is what autograd keeps for the backward pass of one clip in float32. Raises
    ClipSizeError if the clip is too short or too small for the network.
    """
    stages = {name: Stage(name) for name in PARTS}
    # Fake tensors have sizes and types but no data: nothing is allocated or computed.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build()
        model.train()
        with _observed(model, stages), _kept_bytes(model, stages):
            _trace(model, num_frames, crop_size)
    for name, parameter in model.named_parameters():
        stages[_part_of(name)].parameters += parameter.numel()
    for name, _ in model.named_modules():
        if name.rpartition(".")[2].startswith("nl") and _part_of(name).startswith("res"):
            stages[_part_of(name)].non_local.append(name.rpartition(".")[2])
    return list(stages.values())


def training_operations(stages: Iterable[Stage]) -> int:
    """Floating point operations of training on one clip, without what is computed again."""
    # A multiply-add is 2. A backward pass is 2 forward passes; 1 for the stem, which has no dx.
    return sum((4 if stage.name == "conv1" else 6) * stage.multiply_adds for stage in stages)


def check_sizes(
    build: Callable[[], VideoClassifier], num_frames: int, crop_sizes: Iterable[int]
) -> None:
    """Raise ClipSizeError if clips of these sizes are too short or too small for a network."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build().eval()
        for crop_size in crop_sizes:
            _trace(model, num_frames, crop_size)


def _trace(model: VideoClassifier, num_frames: int, crop_size: int) -> None:
    """A forward pass of one clip, in the current mode for fake tensors."""
    log = logging.getLogger("torch._subclasses.fake_tensor")  # it reports the same error at length
    log.disabled = True
    try:
        model(torch.empty(1, 3, num_frames, crop_size, crop_size))
    except RuntimeError as error:
        raise ClipSizeError(
            f"clips of {num_frames} frames and {crop_size} x {crop_size} pixels do not pass "
            f"through the network ({str(error).splitlines()[0]})"
        ) from error
    finally:
        log.disabled = False


def _part_of(name: str) -> str:
    """The row of a parameter or module; norm1 belongs to the row of conv1."""
    words = name.split(".")
    word = words[1] if words[0] == "backbone" and len(words) > 1 else words[0]
    return "conv1" if word == "norm1" else word


@contextmanager
def _observed(model: nn.Module, stages: dict[str, Stage]) -> Iterator[None]:
    """Hooks that record the output sizes and add up the multiply-adds."""

    def record(stage: Stage, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        stage.multiply_adds += multiply_adds(module, inputs, output)
        if output.dim() == 5:
            stage.output = tuple(output.shape[1:])

    named = [(_part_of(name), module) for name, module in model.named_modules()]
    handles = [
        module.register_forward_hook(partial(record, stages[part]))
        for part, module in named
        if part in stages
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def multiply_adds(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Multiply-adds of one call of a module, without its children."""
    if isinstance(module, Pointwise):
        return inputs[0].shape[:-1].numel() * module.in_channels * module.out_channels
    if isinstance(module, nn.Conv3d):
        return output.numel() * module.in_channels // module.groups * prod(module.kernel_size)
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, Operation):
        return module.multiply_adds(*inputs)
    return 0


@contextmanager
def _kept_bytes(model: VideoClassifier, stages: dict[str, Stage]) -> Iterator[None]:
    """Add up the bytes that autograd saves in each stage: each storage once, no parameters."""
    seen = {StorageWeakRef(p.untyped_storage()).cdata for p in model.parameters()}
    current = [stages["conv1"]]

    def enter(stage: Stage, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        current[0] = stage

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = StorageWeakRef(storage).cdata
        if key not in seen:
            seen.add(key)
            alive.append(tensor)  # the key of a freed storage could be used again
            current[0].activation_bytes += storage.nbytes()
        return tensor

    alive: list[Tensor] = []
    children = [(_part_of(f"backbone.{n}"), m) for n, m in model.backbone.named_children()]
    parts = [*children, ("head", model.head)]
    handles = [
        m.register_forward_pre_hook(partial(enter, stages[n])) for n, m in parts if n in stages
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
    finally:
        for handle in handles:
            handle.remove()
