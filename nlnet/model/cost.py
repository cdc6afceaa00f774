"""What a network costs, stage by stage: sizes, parameters, multiply-adds, activation memory."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.hooks import RemovableHandle

from nlnet.errors import UsageError
from nlnet.model.classifier import VideoClassifier
from nlnet.model.non_local.tokens import Operation, Pointwise

PARTS = ("conv1", "pool1", "res2", "pool2", "res3", "res4", "res5", "head")


@dataclass
class Stage:
    """One row: output size (C, T, H, W), counts of one clip, bytes kept for the backward pass."""

    name: str
    output: tuple[int, ...] = ()
    parameters: int = 0
    multiply_adds: int = 0
    activation_bytes: int = 0
    non_local: list[str] = field(default_factory=list)


def describe(build: Callable[[], VideoClassifier], num_frames: int, crop_size: int) -> list[Stage]:
    """Build a network and lead one clip of the given size through it, without numbers, and count.

    Multiply-adds are those of convolutions, linear maps and pairwise sums by their definition,
    N M (d + e), as published tables count them, whatever way they are computed in. The memory is
    what autograd keeps for the backward pass of one clip in float32. Raises UsageError for a clip
    that is too short or small for the network.
    """
    stages = {name: Stage(name) for name in PARTS}
    # Sizes and types of CPU tensors, and no numbers in them: no memory, and nothing is computed.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build()
        model.train()
        video = torch.empty(1, 3, num_frames, crop_size, crop_size)
        with observed(model, stages), kept_bytes(model, stages):
            run_through(model, video)
    for name, parameter in model.named_parameters():
        stages[part_of(name)].parameters += parameter.numel()
    for name, module in model.named_modules():
        if name.rpartition(".")[2].startswith("nl") and part_of(name).startswith("res"):
            stages[part_of(name)].non_local.append(name.rpartition(".")[2])
        del module
    return list(stages.values())


def check_clips(
    build: Callable[[], VideoClassifier], num_frames: int, crop_sizes: Iterable[int]
) -> None:
    """Raise a UsageError where clips of these sizes are too short or small for a network."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build().eval()
        for crop_size in crop_sizes:
            run_through(model, torch.empty(1, 3, num_frames, crop_size, crop_size))


def run_through(model: VideoClassifier, video: Tensor) -> None:
    """A forward pass; a UsageError where a pool or window is larger than what reaches it."""
    log = logging.getLogger("torch._subclasses.fake_tensor")  # it would tell the same, at length
    log.disabled = True
    try:
        model(video)
    except RuntimeError as error:
        frames, size = video.shape[2], video.shape[4]
        raise UsageError(
            f"clips of {frames} frames and {size} x {size} pixels do not pass through the network "
            f"({str(error).splitlines()[0]}); see data.clip, model.pool2_kernel, model.head_window"
        ) from error
    finally:
        log.disabled = False


def part_of(name: str) -> str:
    """The row that a parameter or module belongs to; the norm of the stem stands with conv1."""
    words = name.split(".")
    word = words[1] if words[0] == "backbone" and len(words) > 1 else words[0]
    return "conv1" if word == "norm1" else word


@contextmanager
def observed(model: nn.Module, stages: dict[str, Stage]) -> Iterator[None]:
    """Hooks that note output sizes and add up multiply-adds."""
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        part = part_of(name)
        if part not in stages:
            continue
        stage = stages[part]

        def note(
            module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, stage: Stage = stage
        ) -> None:
            stage.multiply_adds += multiply_adds(module, inputs, output)
            if output.dim() == 5:
                stage.output = tuple(output.shape[1:])

        handles.append(module.register_forward_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def multiply_adds(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Multiply-adds of one call of one module, without its children."""
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
def kept_bytes(model: VideoClassifier, stages: dict[str, Stage]) -> Iterator[None]:
    """Add up what autograd saves in each stage: every storage once, parameters left out."""
    seen = {StorageWeakRef(p.untyped_storage()).cdata for p in model.parameters()}
    current = [stages["conv1"]]

    def enter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            current[0] = stages[name]

        return hook

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = StorageWeakRef(storage).cdata
        if key not in seen:
            seen.add(key)
            alive.append(tensor)  # a freed storage's key could come again
            current[0].activation_bytes += storage.nbytes()
        return tensor

    alive: list[Tensor] = []
    children = [(part_of(f"backbone.{n}"), m) for n, m in model.backbone.named_children()]
    parts = [*children, ("head", model.head)]
    handles = [m.register_forward_pre_hook(enter(n)) for n, m in parts if n in stages]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
    finally:
        for handle in handles:
            handle.remove()
