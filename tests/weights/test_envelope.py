"""The tensors of a file are found under every usual word and prefix; several sets are asked for."""

from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nlnet.config import ResNetConfig
from nlnet.errors import UsageError, UserError
from nlnet.model.build import build_model
from nlnet.weights.files import read_weight_file
from nlnet.weights.load import load_weights, read_weights
from nlnet.weights.public import split_word
from nlnet.weights.rewrite import export_state
from nlnet.weights.sources.all import FORMATS

State = dict[str, Tensor]
RESNET = ResNetConfig(depth=14, width=4)


@cache
def own(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return build_model(RESNET, 3).state_dict()


@cache
def theirs(seed: int = 0) -> State:
    return export_state(own(seed), "torchvision", frames=False)


def add(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def read(path: Path, saved: object, word: str = "") -> State:
    torch.save(saved, path)
    return read_weights(f"{path}#{word}" if word else str(path)).state


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) and found[key].dtype == expected[key].dtype
        for key in expected
    )


PREFIXES = (
    *("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."),
    *("module.model.", "model._orig_mod.", "module.module._orig_mod._orig_mod."),
)
WORDS = (
    *("", "state_dict", "model", "model_state", "model_state_dict", "model_ema", "ema", "net"),
    *("ema_state_dict", "state_dict_ema", "anything", "ema.shadow"),
)


@pytest.mark.parametrize("network", [own, theirs])
@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_prefixes_are_removed_in_any_order(network: Any, prefix: str, tmp_path: Path):
    assert same(read(tmp_path / "a.pt", add(prefix, network())), own())


@pytest.mark.parametrize("network", [own, theirs])
@pytest.mark.parametrize("word", WORDS)
def test_tensors_are_found_below_any_word(network: Any, word: str, tmp_path: Path):
    saved: Any = OrderedDict(add("module.", network()))
    for key in reversed(word.split(".") if word else []):
        saved = {"epoch": 3, key: saved, "optimizer": {"state": {0: {"m": torch.zeros(2)}}}}
    assert same(read(tmp_path / "a.pt", saved), own())


def test_a_compiled_part_of_a_network_is_read(tmp_path: Path):
    inside = {key.replace("backbone.", "backbone._orig_mod."): v for key, v in own().items()}
    assert same(read(tmp_path / "a.pt", inside), own())


def test_an_average_of_torch_is_read(tmp_path: Path):
    averaged = AveragedModel(build_model(RESNET, 3))
    averaged.module.load_state_dict(own())
    assert same(read(tmp_path / "a.pt", {"model_ema": averaged.state_dict()}), own())


def test_our_networks_of_another_library_are_read(tmp_path: Path):
    """They have no `backbone.conv1.weight`, by which our ResNets are recognized."""
    state = {"backbone.conv1.conv.weight": torch.ones(2, 3), "head.fc.weight": torch.ones(2, 2)}
    assert same(read(tmp_path / "a.pt", {"state_dict": add("module.", state)}), state)


def test_several_sets_are_asked_for_with_their_words(tmp_path: Path):
    path = tmp_path / "a.pt"
    saved = {"model": theirs(0), "model_ema": add("module.", theirs(1)), "epoch": 2}
    with pytest.raises(UsageError) as error:
        read(path, saved)
    text = str(error.value)
    assert "\n" not in text and "model and model_ema" in text and f"{path}#model_ema" in text
    assert same(read(path, saved, "model"), own(0))
    assert same(read(path, saved, "model_ema"), own(1))
    with pytest.raises(UsageError, match=r"a.pt#ema: holds no tensors under ema; .*model, model_e"):
        read(path, saved, "ema")


def test_every_reader_asks_and_takes_the_word(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save({"state_dict": own(0), "ema_state_dict": own(1)}, path)
    model = build_model(RESNET, 3)
    with pytest.raises(UsageError, match="state_dict and ema_state_dict"):
        load_weights(model, str(path))
    load_weights(model, f"{path}#ema_state_dict")
    assert same(model.state_dict(), own(1))


def test_a_url_takes_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    torch.save({"model": own(0), "ema": own(1)}, tmp_path / "a.pt")
    assert same(read_weights(f"file://{tmp_path}/a.pt#ema").state, own(1))


def test_the_character_can_be_part_of_a_name(tmp_path: Path):
    path = tmp_path / "run#3.pt"
    assert same(read(path, {"model": own()}), own())
    assert same(read(path, {"model": own(), "ema": own(1)}, "ema"), own(1))
    assert split_word(f"{path}#ema") == (str(path), "ema")
    assert split_word(str(path)) == (str(path), None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", [None, "slowfast", "pytorchvideo", "mmaction2", "torchvision"])
def test_halves_become_float32_before_anything_computes(
    dtype: torch.dtype, form: str | None, tmp_path: Path
):
    """Inflation divides by the number of frames, which is not exact in 16 bits."""
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in own().items()}
    expected = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    frames = form is None or not FORMATS[form].images
    saved = state if form is None else export_state(state, form, frames=frames)
    found = read(tmp_path / "a.pt", {"state_dict": saved})
    assert all(torch.equal(found[key], expected[key]) for key in found)
    assert {v.dtype for v in found.values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a"])
def test_safetensors_are_read_by_content(dtype: torch.dtype, name: str, tmp_path: Path):
    halves = {k: v.to(dtype) if v.is_floating_point() else v for k, v in theirs().items()}
    save_file(add("module.", halves), tmp_path / name)
    found = read_weights(str(tmp_path / name)).state
    assert torch.equal(found["head.fc.weight"], halves["fc.weight"].float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_inflated_in_float32(dtype: torch.dtype, tmp_path: Path):
    halves = {k: v.to(dtype) if v.is_floating_point() else v for k, v in theirs().items()}
    torch.save(halves, tmp_path / "a.pt")
    model = build_model(ResNetConfig(depth=14, width=4, conv1_kernel=[3, 7, 7]), 3)
    load_weights(model, str(tmp_path / "a.pt"))
    found = model.state_dict()["backbone.conv1.weight"]
    assert torch.equal(found, halves["conv1.weight"].float().unsqueeze(2).expand_as(found) / 3)


def test_a_classifier_without_names_says_in_which_order_it_is_taken(tmp_path: Path):
    model: nn.Module = build_model(RESNET, 3)
    torch.save({"model": own()}, tmp_path / "a.pt")
    report = load_weights(model, str(tmp_path / "a.pt"), class_names=["x", "y", "z"])
    assert "names no classes: its 3 outputs are taken in the order of" in report.summary()
    other = load_weights(build_model(RESNET, 2), str(tmp_path / "a.pt"), class_names=["x", "y"])
    assert "order" not in other.summary() and "classifier is new" in other.summary()


def test_a_file_without_known_names_says_so(tmp_path: Path):
    with pytest.raises(UserError, match=r"neither an nlnet checkpoint .*first keys are w, v"):
        read(tmp_path / "a.pt", {"x": {"w": torch.ones(1), "v": torch.ones(1)}})
    with pytest.raises(UserError, match="those of torchvision, not of slowfast"):
        torch.save({"model": theirs()}, tmp_path / "a.pt")
        read_weight_file(tmp_path / "a.pt", "slowfast")
