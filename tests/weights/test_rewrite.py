"""Other code bases' names and back, and the rewritings that keep a network's answer."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from nlnet.config import ResNetConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.classifier import VideoClassifier
from nlnet.weights.formats import CODE_BASES, FORMATS, format_for, recognise
from nlnet.weights.rewrite import (
    REWRITES,
    export_state,
    express,
    fit,
    fold_norms,
    fold_out_bias,
    fold_scale,
    import_state,
    unfold_norms,
)

StateDict = dict[str, Tensor]

TINY: dict[str, Any] = {"depth": 26, "width": 8, "dropout": 0.0}
# What a network of each format can have: our settings.
NETWORKS: dict[str, dict[str, Any]] = {
    "caffe2": {"temporal_kernels": {"res2": [3]}, "non_local": {"res3": [1], "res4": [0]}},
    "slowfast": {"temporal_kernels": {"res3": [3, 1]}, "non_local": {"res3": [1]}},
    "mmaction2": {"non_local": {"res3": [1], "subsample": "none", "out_bias": False}},
    "mmaction2_pooled": {
        "conv1_kernel": [5, 7, 7],
        "non_local": {
            "res3": [1],
            "subsample": "embedded",
            "out_bias": False,
            "pairwise": "concatenation",
        },
    },
    "pytorchvideo": {"temporal_kernels": {"res3": [3, 1]}},
    "pytorchvideo_slow": {"temporal_kernels": {"res4": [3]}, "pool2_kernel": None},
    "torchvision": {},
}


def network(settings: dict[str, Any], seed: int = 0) -> VideoClassifier:
    """A tiny network with statistics and scales as after training, float64."""
    tree = OmegaConf.merge(OmegaConf.structured(ResNetConfig), TINY, settings)
    cfg = OmegaConf.to_object(tree)
    assert isinstance(cfg, ResNetConfig)
    torch.manual_seed(seed)
    model = build_model(cfg, 5).double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif "norm" in name and name.endswith("weight"):
            tensor.uniform_(0.2, 1.0)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.3)
        elif name.endswith(("theta.weight", "phi.weight", "out.weight", "g.weight")):
            tensor.normal_(0, 0.2)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    return model


def answer(settings: dict[str, Any], state: StateDict) -> Tensor:
    model = network(settings)
    model.load_state_dict(state)
    torch.manual_seed(1)
    with torch.no_grad():
        return model(torch.randn(1, 3, 4, 32, 32, dtype=torch.float64))


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert float((found - expected).abs().max() / expected.abs().max()) <= tolerance


@pytest.mark.parametrize("form", NETWORKS)
def test_a_round_trip_is_exact(form: str):
    state = network(NETWORKS[form]).state_dict()
    theirs = export_state(state, form, frames=form != "torchvision")
    assert recognise(theirs) == form
    ours = import_state(theirs, form)
    again = export_state(ours, form, frames=form != "torchvision")
    assert list(again) == list(theirs)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)
    counts = {key for key in state if key.endswith("num_batches_tracked")}
    assert ours.keys() == state.keys() - (counts if form == "caffe2" else set())
    assert all(torch.equal(ours[key], state[key]) for key in ours)


def test_every_code_base_has_a_network_here():
    assert {FORMATS[form].code_base for form in NETWORKS} == set(CODE_BASES)


def test_solver_state_stays_behind_and_strangers_are_listed():
    theirs = export_state(network(NETWORKS["caffe2"]).state_dict(), "caffe2")
    theirs |= {"lr": torch.tensor(0.1), "conv1_w_momentum": torch.zeros(3)}
    assert "lr" not in import_state(theirs, "caffe2")
    with pytest.raises(UserError, match=r"2 keys \(invented_w, other\) unknown .* caffe2"):
        import_state({**theirs, "invented_w": torch.zeros(1), "other": torch.zeros(1)}, "caffe2")


def test_what_a_format_cannot_name_is_listed():
    state = network({"non_local": {"res3": [1]}}).state_dict()
    with pytest.raises(
        UserError, match=r"keys \(backbone.res3.nl1.* without a name in torchvision"
    ):
        export_state(state, "torchvision")
    long = network({"conv1_kernel": [5, 7, 7]}).state_dict()
    with pytest.raises(UserError, match=r"1 keys \(backbone.conv1.weight\) too long in time"):
        export_state(long, "torchvision", frames=False)


BLOCK = {"res3": [1], "res4": [0, 1]}


def test_folded_norms_answer_alike():
    state = network({"non_local": BLOCK}).state_dict()
    affine = {"norm": "affine", "non_local": {**BLOCK, "norm": "affine"}}
    same(answer(affine, fold_norms(state)), answer({"non_local": BLOCK}, state))


def test_unfolded_norms_answer_alike():
    affine = {"norm": "affine", "non_local": {**BLOCK, "norm": "affine"}}
    state = network(affine).state_dict()
    same(answer({"non_local": BLOCK}, unfold_norms(state)), answer(affine, state))


def test_a_folded_bias_answers_alike():
    state = network({"non_local": BLOCK}).state_dict()
    bare = {"non_local": {**BLOCK, "out_bias": False}}
    same(answer(bare, fold_out_bias(state)), answer({"non_local": BLOCK}, state))
    back = REWRITES["add_out_bias"](fold_out_bias(state))
    same(answer({"non_local": BLOCK}, back), answer({"non_local": BLOCK}, state))


def test_a_folded_scale_answers_alike():
    """Both ways; and it is no accident that the scale was seen."""
    scaled, unscaled = ({"non_local": {**BLOCK, "scale": flag}} for flag in (True, False))
    state = network(scaled).state_dict()
    expected = answer(scaled, state)
    same(answer(unscaled, fold_scale(state, scaled=False)), expected)
    same(answer(scaled, fold_scale(fold_scale(state, scaled=False), scaled=True)), expected)
    with pytest.raises(AssertionError):
        same(answer(unscaled, state), expected, tolerance=1e-6)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({}, {"norm": "affine", "non_local": {"norm": "affine"}}),
        ({"norm": "affine", "non_local": {"norm": "affine"}}, {}),
        ({}, {"non_local": {"out_bias": False}}),
        ({"non_local": {"out_bias": False}}, {}),
        ({"non_local": {"embedding_bias": False}}, {}),
        ({}, {"norm": "affine", "non_local": {"norm": "affine", "out_bias": False}}),
        ({}, {"norm": "frozen", "non_local": {"norm": "frozen"}}),
    ],
)
def test_weights_fit_networks_that_differ_in_form_alone(
    source: dict[str, Any], target: dict[str, Any]
):
    place = {"non_local": BLOCK}
    source, target = (
        OmegaConf.to_object(OmegaConf.merge(place, tree)) for tree in (source, target)
    )
    state = network(source).state_dict()
    fitted, done = fit(state, network(target).state_dict())
    same(answer(target, fitted), answer(source, state))
    assert done or target["non_local"].get("norm") == "frozen"


def test_counts_that_a_file_lacks_start_at_0():
    state = network({}).state_dict()
    without = {key: value for key, value in state.items() if not key.endswith("tracked")}
    fitted, done = fit(without, state)
    assert fitted.keys() == state.keys() and done == []
    assert int(fitted["backbone.norm1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("target", ["caffe2", "slowfast", "mmaction2"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", ["batch", "affine", "none"])
def test_a_network_is_expressed_as_another_code_base_has_it(target: str, bias: bool, norm: str):
    """And answers there as here: read back by the network that the code base would build."""
    block = {**BLOCK, "subsample": "none", "embedding_bias": bias, "out_bias": bias, "norm": norm}
    ours = {"non_local": block, "norm": "affine" if norm == "affine" else "batch"}
    state = network(ours).state_dict()
    theirs = export_state(express(state, target), target)
    plain = norm == "none"
    form = {
        "caffe2": {"embedding_bias": bias, "out_bias": bias, "norm": norm},
        "slowfast": {"norm": "batch"},
        "mmaction2": {"out_bias": plain, "norm": "none" if plain else "batch"},
    }[target]
    there = {"non_local": {**BLOCK, "subsample": "none", **form}}
    if target == "caffe2":
        there["norm"] = ours["norm"]
    back = import_state(theirs, target)
    fitted, done = fit(back, network(there).state_dict())
    assert done == []
    same(answer(there, fitted), answer(ours, state))


@pytest.mark.parametrize(
    ("settings", "code_base", "facts", "cause"),
    [
        ({"res3": [1]}, "mmaction2", ("input", True), "pool their keys elsewhere"),
        ({"res3": [1]}, "torchvision", ("none", True), "has no name for"),
        ({"res3": [1]}, "pytorchvideo", ("none", True), "has no name for"),
        ({"res3": [1], "pairwise": "gaussian"}, "slowfast", ("input", True), "theta and phi"),
        ({}, "pytorchvideo", ("input", None), "pool behind res2"),
    ],
)
def test_a_network_that_a_code_base_cannot_hold_is_refused(
    settings: dict[str, Any], code_base: str, facts: tuple[Any, ...], cause: str
):
    state = network({"non_local": settings}).state_dict()
    with pytest.raises(UserError, match=cause):
        format_for(code_base, state, *facts)
