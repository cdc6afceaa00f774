import pytest
import torch
from torch import nn

from nlnet.trainer.optim import load_optimizer, parameter_groups


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


OPTIMIZERS = {
    "sgd": lambda ps, fused: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, fused=fused),
    "adamw": lambda ps, fused: torch.optim.AdamW(ps, lr=0.01, fused=fused),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("saved", "own"), [(True, None), (None, True), (None, None)])
def test_a_checkpoint_continues_with_the_kernels_of_this_run(
    name: str, saved: bool | None, own: bool | None
):
    """A fused optimizer, as on a GPU, goes on where an optimizer that is not fused has ended."""

    def steps(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, first: int) -> None:
        for i in range(first, first + 3):
            parameter.grad = torch.arange(5.0).sub(i)
            optimizer.step()

    make = OPTIMIZERS[name]
    one, other = (nn.Parameter(torch.ones(5)) for _ in range(2))
    before, whole = make([one], saved), make([other], own)
    steps(before, one, 0)
    steps(whole, other, 0)
    resumed = nn.Parameter(one.detach().clone())
    after = make([resumed], own)
    load_optimizer(after, before.state_dict())
    assert after.param_groups[0]["fused"] is own
    steps(after, resumed, 3)
    steps(whole, other, 3)
    torch.testing.assert_close(resumed, other)


def test_a_checkpoint_with_other_groups_is_refused():
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    two = torch.optim.SGD([{"params": [one]}, {"params": [other]}])
    with pytest.raises(ValueError):
        load_optimizer(torch.optim.SGD([one]), two.state_dict())
