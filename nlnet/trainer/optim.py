"""Which parameters learn, and which of them decay."""

from collections.abc import Iterator, Sequence
from types import MethodType
from typing import Any

from torch import nn
from torch.nn import GroupNorm, LayerNorm, Parameter
from torch.nn.modules.batchnorm import _BatchNorm

from nlnet.errors import UsageError


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_norm: bool, decay_bias: bool
) -> list[dict[str, Any]]:
    """Optimiser groups with and without weight decay; frozen parameters are in neither.

    A norm parameter is one of a batch, group or layer norm, or a scalar gamma that scales the
    output of a non-local block. A bias is that of any other module.
    """
    decayed: list[Parameter] = []
    others: list[Parameter] = []
    for module, name, parameter in _learning(model):
        if isinstance(module, (_BatchNorm, GroupNorm, LayerNorm)) or (
            name == "gamma" and parameter.numel() == 1
        ):
            decays = decay_norm
        else:
            decays = decay_bias or name != "bias"
        (decayed if decays else others).append(parameter)
    groups = ((decayed, weight_decay), (others, 0.0))
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def _learning(model: nn.Module) -> Iterator[tuple[nn.Module, str, Parameter]]:
    """Each parameter that learns, once, with the (first) module that owns it."""
    seen: set[Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module, name, parameter


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Stop the learning of named parts, for good: they also stay in eval mode in training.

    A name is the dotted path of a module in the model or in its backbone (`conv1`, `res3.block0`,
    `head`). Raises UsageError for a name that is neither.
    """
    modules = dict(model.named_modules())
    for name in names:
        path = name if name in modules else f"backbone.{name}"
        if not name or path not in modules:
            paths = [path.removeprefix("backbone.") for path in modules if path != "backbone"]
            valid = ", ".join(path for path in paths if path and "." not in path)
            raise UsageError(f"trainer.freeze: no part is named {name!r}; there are {valid}")
        part = modules[path].requires_grad_(False)
        part.train = MethodType(_stay_in_eval, part)
        part.eval()


def _stay_in_eval(part: nn.Module, mode: bool = True) -> nn.Module:
    """In place of `train` of a frozen part: running statistics of its batch norms stand still."""
    return nn.Module.train(part, False)
