from functools import partial
from types import ModuleType

import pytest
import torch
from torch import nn

from nlnet.config import ResNetConfig
from nlnet.errors import ArgumentError
from nlnet.model.build import build_model
from nlnet.model.speed.checkpointing import save_memory
from nlnet.trainer.metrics import Metrics
from nlnet.trainer.optim import parameter_groups
from nlnet.trainer.prepare import (
    COMPILE_MODES,
    freeze_parts,
    prepare_model,
    set_training_mode,
    wrap_for_training,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["conv1", "backbone.conv1"])
def test_a_frozen_part_has_no_gradient(tiny: ModuleType, name: str):
    model = tiny.TinyNet()
    freeze_parts(model, [name])
    assert not model.backbone.conv1.weight.requires_grad
    assert model.backbone.conv2.weight.requires_grad


def test_frozen_parts_stay_in_eval_mode(tiny: ModuleType):
    model = tiny.TinyNet()
    for _ in range(2):
        set_training_mode(model, model, ["norm1", "head"])
        modes = {name: part.training for name, part in model.backbone.named_children()}
        assert modes == {name: name != "norm1" for name in modes}
        assert not model.head.training
        model.eval()


@pytest.mark.parametrize("name", ["res9", "", "backbone.res9", "conv1.weight"])
def test_an_unknown_part_is_refused_with_the_known_parts(tiny: ModuleType, name: str):
    with pytest.raises(ArgumentError, match=rf"^freeze='{name}' .*there are .*conv1.*head"):
        freeze_parts(tiny.TinyNet(), [name])


def test_frozen_weights_and_statistics_do_not_change(tiny: ModuleType, tmp_path):
    state = tiny.make_state()
    freeze = ("conv1", "norm1")
    freeze_parts(state.model, freeze)
    groups = parameter_groups(state.model, 1e-2, decay_norm=True, decay_bias=True)
    state.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    settings = tiny.make_settings(epochs=1, precise_bn=2, freeze=freeze)
    with tiny.RunLogger(tmp_path, total_steps=4) as logger:
        tiny.fit(
            state,
            state.model,
            settings,
            loader_at=tiny.loader_at(),
            validate=lambda: Metrics({"top1": 0.0}, "top1"),
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


def test_a_frozen_stage_stays_in_eval_mode_if_it_is_checkpointed():
    """Memory saving replaces the module of the stage; its name still finds it."""
    model = build_model(ResNetConfig(depth=14, width=8), num_classes=3)
    save = partial(save_memory, lean=True, checkpoint_stages=["res3"])
    prepare_model(model, freeze=["res3"], save_memory=save)
    network = wrap_for_training(model, device=CPU)
    set_training_mode(network, model, ["res3"])
    stage = model.backbone.get_submodule("res3")
    norms = [module for module in stage.modules() if isinstance(module, nn.BatchNorm3d)]
    assert norms and not any(norm.training for norm in norms)
    assert not any(parameter.requires_grad for parameter in stage.parameters())
    assert model.backbone.get_submodule("res4").training


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_each_size_of_clips_is_compiled_in_the_chosen_mode(
    mode: str, monkeypatch: pytest.MonkeyPatch
):
    given = {}
    monkeypatch.setattr(torch, "compile", lambda model, **options: given.update(options) or model)
    wrap_for_training(nn.Linear(1, 1), device=CPU, compiled=True, compile_mode=mode)
    assert given == {"dynamic": False, "mode": mode}


def test_an_unknown_mode_of_the_compiler_is_refused():
    with pytest.raises(ArgumentError, match=r"^compile_mode=fastest .*reduce-overhead"):
        wrap_for_training(nn.Linear(1, 1), device=CPU, compiled=True, compile_mode="fastest")


def test_the_network_shares_the_parameters_of_the_model():
    model = nn.Conv3d(2, 2, 3)
    network = wrap_for_training(model, device=CPU, channels_last=True)
    assert {id(p) for p in network.parameters()} == {id(p) for p in model.parameters()}
    assert model.weight.is_contiguous(memory_format=torch.channels_last_3d)
    compiled = wrap_for_training(model, device=CPU, compiled=True)
    assert {id(p) for p in compiled.parameters()} == {id(p) for p in model.parameters()}
    assert list(model.state_dict()) == ["weight", "bias"]


def test_a_compiled_network_switches_the_modes_of_the_model():
    model = nn.Sequential(nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2), nn.BatchNorm3d(2)).eval()
    network = wrap_for_training(model, device=CPU, compiled=True)
    set_training_mode(network, model, ["1"])
    assert [part.training for part in model] == [True, False, True]
