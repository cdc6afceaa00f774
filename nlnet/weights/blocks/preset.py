"""What a published block is: its own settings, our block with the same numbers, and its names.

A preset has the name of a class of a code base. It reads the keywords of that class's constructor.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nlnet.errors import UserError
from nlnet.weights.code_base import Settings
from nlnet.weights.keymap import Format, Table, to_nlnet

REQUIRED = object()  # the default value of a setting that must be given


@dataclass(frozen=True)
class PublishedBlock:
    """A block with the numbers of a published one, and the names of its parameters there."""

    block: nn.Module
    modules: Table  # our module -> theirs
    parameters: Table = field(default_factory=dict)  # our parameter -> theirs, without a module
    unused: tuple[str, ...] = ()  # their parameters that do not change the output

    def import_state(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their tensors with our names and shapes, which differ in sizes of 1 alone.

        Raises UserError for a tensor whose name or shape is another one.
        """
        form = Format("block", self.modules)
        whole = {name: ours for ours, name in self.parameters.items()}
        shapes = {name: tensor.shape for name, tensor in self.block.state_dict().items()}
        state = {}
        for key, tensor in theirs.items():
            if key in self.unused:
                continue
            name = whole.get(key) or to_nlnet(key, form)
            if name not in shapes:
                raise UserError(f"{key}: the block has no such parameter")
            if _sizes(tensor.shape) != _sizes(shapes[name]):
                raise UserError(f"{key} is {tuple(tensor.shape)}, not {tuple(shapes[name])}")
            state[name] = tensor.reshape(shapes[name])
        return state


@dataclass(frozen=True)
class Preset:
    """How a class of a code base is built here."""

    defaults: Settings  # keywords of the constructor and their default values
    build: Callable[[Settings], PublishedBlock]
    fixed: tuple[str, ...] = ()  # keywords that are supported with their default value only
    choices: Mapping[str, Iterable[object]] = field(default_factory=dict)  # keyword -> its words
    # Keywords that do not change the output: initialization, learning rates, unused ones.
    without_effect: tuple[str, ...] = ()

    def read(self, settings: Settings) -> PublishedBlock:
        """The block of some settings; raises UserError that names those that are not supported."""
        known = {*self.defaults, *self.without_effect}
        unknown = sorted(settings.keys() - known)
        if unknown:
            raise UserError(f"unsupported settings: {unknown}; known are {sorted(known)}")
        values: dict[str, Any] = {**self.defaults, **settings}
        for name, default in self.defaults.items():
            if values[name] is REQUIRED:
                raise UserError(f"{name} is missing")
            if name in self.fixed and values[name] != default:
                raise UserError(f"{name}={values[name]} is unsupported; nlnet has {default}")
        for name, words in self.choices.items():
            if values[name] not in words:
                known_words = ", ".join(str(word) for word in words)
                raise UserError(f"{name}={values[name]} is unsupported; known are {known_words}")
        return self.build(values)


def _sizes(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]
