import pytest
import torch
from torch import nn

from nlnet.trainer.optim import parameter_groups


class Gated(nn.Module):
    """A module with one parameter of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 1)
        self.batch = nn.BatchNorm3d(2)
        self.group = nn.GroupNorm(1, 2)
        self.layer = nn.LayerNorm(2)
        self.gamma = nn.Parameter(torch.tensor(0.0))
        self.mixing = nn.Parameter(torch.zeros(2))
        self.tied = self.conv
        self.linear = nn.Linear(2, 2)
        self.linear.weight = nn.Parameter(torch.zeros(2, 2))


NORMS = {f"{norm}.{name}" for norm in ("batch", "group", "layer") for name in ("weight", "bias")}
BIASES = {"conv.bias", "linear.bias"}
WEIGHTS = {"conv.weight", "linear.weight", "mixing"}


@pytest.mark.parametrize("decay_norm", [False, True])
@pytest.mark.parametrize("decay_bias", [False, True])
def test_the_options_select_the_parameters_that_decay(decay_norm: bool, decay_bias: bool):
    model = Gated()
    groups = parameter_groups(model, 0.3, decay_norm=decay_norm, decay_bias=decay_bias)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    by_name = {name: decay[id(p)] for name, p in model.named_parameters()}
    decayed = {name for name, value in by_name.items() if value == 0.3}
    assert decayed == WEIGHTS | (NORMS | {"gamma"} if decay_norm else set()) | (
        BIASES if decay_bias else set()
    )
    assert set(by_name.values()) <= {0.3, 0.0}


def test_each_parameter_that_learns_is_in_exactly_one_group():
    model = Gated()
    model.conv.requires_grad_(False)
    groups = parameter_groups(model, 0.1, decay_norm=False, decay_bias=True)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
