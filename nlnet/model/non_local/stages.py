"""Modules between the blocks of a stage, and out again; the other modules and names do not change.

A stage is a Sequential, found by its dotted name, whose children are residual blocks. A new module
is one more child of it, nl{i}, after block i. Its place and its name are all that is stored.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from nlnet.errors import ArgumentError

NAME = re.compile(r"nl(\d+)")  # of an inserted module: the number of the block that it follows


@dataclass(frozen=True)
class Place:
    """Where a module is inserted: after block `index` of a stage."""

    stage: str
    index: int
    block: nn.Module
    following: nn.Module | None  # the next block of the stage; None at its end

    def channels(self) -> int:
        """The number of channels there, from the convolutions of the neighbors.

        Raises ArgumentError if there is none, or if the next block takes another number of
        channels than the last convolution of this one returns.
        """
        found = [conv.out_channels for conv in _convolutions(self.block)[-1:]]
        if self.following is not None:
            found += [conv.in_channels for conv in _convolutions(self.following)[:1]]
        if len(set(found)) != 1:
            raise ArgumentError(
                f"{self.stage}=[{self.index}]: the convolutions do not show the number of channels "
                f"after {type(self.block).__name__}; give channels={{{self.stage!r}: ...}}"
            )
        return found[0]

    def dims(self) -> int:
        """1, 2 or 3, from the convolutions of the block; raises ArgumentError if they differ."""
        found = {len(conv.kernel_size) for conv in _convolutions(self.block)}
        if len(found) != 1:
            raise ArgumentError(
                f"{self.stage}=[{self.index}]: the convolutions do not show the number of "
                f"dimensions of {type(self.block).__name__}; give dims=1, 2 or 3"
            )
        return found.pop()


def insert_modules(
    model: nn.Module,
    after: Mapping[str, Sequence[int]],
    make: Callable[[Place], nn.Module],
    *,
    share: bool = False,
) -> list[str]:
    """Insert make(place) as nl{i} after block i of each stage, and return the dotted names.

    The stage stays the same object. The new module gets the device, the floating point type and
    the mode (training or eval) of its place. With `share`, one module is made for each stage.
    Raises ArgumentError for an unknown stage or block; the model is then unchanged.
    """
    made: dict[str, dict[int, nn.Module]] = {}
    for stage, indices in after.items():
        made[stage] = {}
        for place in _places(model, stage, indices):
            if share and made[stage]:
                (made[stage][place.index],) = set(made[stage].values())
            else:
                made[stage][place.index] = _like(make(place), place.block)
    for stage, modules in made.items():
        _add(model.get_submodule(stage), modules)
    return [_join(stage, f"nl{i}") for stage, modules in made.items() for i in sorted(modules)]


def remove_non_local(model: nn.Module) -> list[str]:
    """Remove all modules that were inserted, and return their dotted names.

    What remains are the objects that the model had before, with their names.
    """
    removed = []
    for name, stage in list(model.named_modules()):
        if isinstance(stage, nn.Sequential):
            for child in _inserted(stage):
                delattr(stage, child)
                removed.append(_join(name, child))
    return removed


def _places(model: nn.Module, stage: str, indices: Sequence[int]) -> Iterator[Place]:
    try:
        sequence = model.get_submodule(stage)
    except AttributeError:
        sequence = None
    if not isinstance(sequence, nn.Sequential):
        known = ", ".join(_stages(model)) or "none: it has no Sequential of residual blocks"
        what = "there is no such stage" if sequence is None else f"{stage} is no Sequential"
        raise ArgumentError(f"{stage}={list(indices)}: {what}; choose from {known}")
    if len(set(indices)) != len(indices):
        raise ArgumentError(
            f"{stage}={list(indices)} names a block twice; at most one non-local block follows each"
        )
    inserted = _inserted(sequence)
    blocks = [block for name, block in _children(sequence) if name not in inserted]
    for i in sorted(indices):
        if not 0 <= i < len(blocks):
            raise ArgumentError(
                f"{stage}={list(indices)}: {stage} has blocks 0 to {len(blocks) - 1}, not {i}"
            )
        if f"nl{i}" in inserted:
            raise ArgumentError(
                f"{stage}={list(indices)}: a non-local block follows block {i} already; "
                "call remove_non_local first"
            )
        yield Place(stage, i, blocks[i], blocks[i + 1] if i + 1 < len(blocks) else None)


def _add(stage: nn.Module, modules: Mapping[int, nn.Module]) -> None:
    """Add nl{i} after block i; the children are registered again, because their order counts."""
    inserted = _inserted(stage)
    index = -1
    for name, child in _children(stage):
        delattr(stage, name)
        if name not in inserted and index in modules:
            stage.add_module(f"nl{index}", modules[index])
        index += name not in inserted
        stage.add_module(name, child)
    if index in modules:
        stage.add_module(f"nl{index}", modules[index])


def _inserted(stage: nn.Module) -> list[str]:
    """The names of the children that were inserted: nl{i} after block i."""
    names, blocks = [], 0
    for name, _ in _children(stage):
        match = NAME.fullmatch(name)
        if match is not None and int(match[1]) == blocks - 1:
            names.append(name)
        else:
            blocks += 1
    return names


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children by name; unlike named_children, a child with two names appears twice."""
    every = module.named_modules(remove_duplicate=False)
    return [(name, child) for name, child in every if name and "." not in name]


def _stages(model: nn.Module) -> list[str]:
    """The names of the outermost Sequentials of several blocks that have parts."""
    names: list[str] = []
    for name, module in model.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer in names)
        if isinstance(module, nn.Sequential) and not inside:
            names += [name] * any(list(child.children()) for child in module)
    return names


def _convolutions(module: nn.Module) -> list[nn.Conv1d | nn.Conv2d | nn.Conv3d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]


def _like(module: nn.Module, block: nn.Module) -> nn.Module:
    """Move a module to the device and the floating point type of a block, and set its mode."""
    floating = (tensor for tensor in block.parameters() if tensor.is_floating_point())
    tensor = next(floating, None)
    if tensor is not None and any(
        (own.device, own.dtype) != (tensor.device, tensor.dtype) for own in module.parameters()
    ):
        module = module.to(device=tensor.device, dtype=tensor.dtype)
    return module.train(block.training)


def _join(stage: str, name: str) -> str:
    return f"{stage}.{name}" if stage else name
