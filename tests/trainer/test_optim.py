from types import ModuleType

import pytest
import torch
from torch import nn

from nlnet.errors import UsageError
from nlnet.trainer.optim import freeze, parameter_groups


class Gated(nn.Module):
    """One parameter of each kind."""

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
def test_what_decays(decay_norm: bool, decay_bias: bool):
    model = Gated()
    groups = parameter_groups(model, 0.3, decay_norm=decay_norm, decay_bias=decay_bias)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    by_name = {name: decay[id(p)] for name, p in model.named_parameters()}
    decayed = {name for name, value in by_name.items() if value == 0.3}
    assert decayed == WEIGHTS | (NORMS | {"gamma"} if decay_norm else set()) | (
        BIASES if decay_bias else set()
    )
    assert set(by_name.values()) <= {0.3, 0.0}


def test_each_parameter_that_learns_is_in_one_group():
    model = Gated()
    model.conv.requires_grad_(False)
    groups = parameter_groups(model, 0.1, decay_norm=False, decay_bias=True)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["conv1", "backbone.conv1"])
def test_a_frozen_part_has_no_gradient(tiny: ModuleType, name: str):
    model = tiny.TinyNet()
    freeze(model, [name])
    assert not model.backbone.conv1.weight.requires_grad
    assert model.backbone.conv2.weight.requires_grad


def test_frozen_parts_stay_in_eval_mode(tiny: ModuleType):
    model = tiny.TinyNet()
    freeze(model, ["norm1", "head"])
    for _ in range(2):
        model.train()
        modes = {name: part.training for name, part in model.backbone.named_children()}
        assert modes == {name: name != "norm1" for name in modes}
        assert not model.head.training
        model.eval()


@pytest.mark.parametrize("name", ["res9", "", "backbone.res9", "conv1.weight"])
def test_an_unknown_part_is_refused_with_the_names_that_there_are(tiny: ModuleType, name: str):
    with pytest.raises(UsageError, match=r"trainer\.freeze.*there are .*conv1.*head"):
        freeze(tiny.TinyNet(), [name])


def test_frozen_weights_and_statistics_do_not_move(tiny: ModuleType, tmp_path):
    state = tiny.make_state()
    freeze(state.model, ["conv1", "norm1"])
    groups = parameter_groups(state.model, 1e-2, decay_norm=True, decay_bias=True)
    state.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    recipe = tiny.make_recipe(epochs=1, precise_bn=2)
    sizes = {"total_steps": 4, "steps_per_epoch": 4}
    with tiny.RunLogger(tmp_path, **sizes) as logger:
        tiny.fit(
            state,
            state.model,
            recipe,
            loader_at=tiny.loader_at(),
            validate=lambda: {"top1": 0.0},
            logger=logger,
            out_dir=tmp_path,
        )
    moved = {
        name for name, value in state.model.state_dict().items() if not value.equal(before[name])
    }
    assert moved == {
        "backbone.conv2.weight",
        "backbone.norm2.weight",
        "backbone.norm2.bias",
        "backbone.norm2.running_mean",
        "backbone.norm2.running_var",
        "backbone.norm2.num_batches_tracked",
        "head.weight",
        "head.bias",
    }
