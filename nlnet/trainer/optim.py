"""The parameter groups of the optimizer, and its state in checkpoints."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn import GroupNorm, LayerNorm, Parameter
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_norm: bool, decay_bias: bool
) -> list[dict[str, Any]]:
    """Return optimizer groups with and without weight decay. Frozen parameters are in neither.

    The parameters of a norm are those of a batch, group or layer norm, and a scalar `gamma` that
    scales the output of a non-local block. A bias is a parameter `bias` of any other module.

    Args:
        model: its frozen parameters have requires_grad=False
        weight_decay: of the group that decays
        decay_norm: whether the parameters of norms decay
        decay_bias: whether biases decay
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


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load the state of an optimizer that may have been on another kind of device.

    The kernels of the update stay those of this optimizer. Raises ValueError for other groups.
    """
    kernels = ("fused", "foreach")
    groups = [
        theirs | {name: ours[name] for name in kernels if name in ours}
        for theirs, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(saved | {"param_groups": groups})


def _learning(model: nn.Module) -> Iterator[tuple[nn.Module, str, Parameter]]:
    """Yield each parameter that learns once, with the first module that has it."""
    seen: set[Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module, name, parameter
