"""Names of other code bases in both directions, and rewrites that keep a network's output."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from nlnet.config import ResNetConfig
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.classifier import VideoClassifier
from nlnet.weights.recognize import format_for, recognize
from nlnet.weights.rewrite import (
    REWRITES,
    adapt,
    adapt_to_format,
    affine_to_norms,
    export_state,
    fold_out_bias,
    fold_scale,
    import_state,
    norms_to_affine,
)
from nlnet.weights.sources.all import CODE_BASES, FORMATS

StateDict = dict[str, Tensor]

TINY: dict[str, Any] = {"depth": 26, "width": 8, "dropout": 0.0}
# Settings of a network that each format can hold.
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
    """Build a tiny network in float64 with statistics and scales as after training."""
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


def output(settings: dict[str, Any], state: StateDict) -> Tensor:
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
    assert recognize(theirs) == form
    ours = import_state(theirs, form)
    again = export_state(ours, form, frames=form != "torchvision")
    assert list(again) == list(theirs)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)
    counts = {key for key in state if key.endswith("num_batches_tracked")}
    assert ours.keys() == state.keys() - (counts if form == "caffe2" else set())
    assert all(torch.equal(ours[key], state[key]) for key in ours)


def test_every_code_base_has_a_network_here():
    assert {FORMATS[form].code_base for form in NETWORKS} == set(CODE_BASES)


def test_solver_state_is_left_out_and_unknown_keys_are_listed():
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


def test_norms_to_affine_keeps_the_output():
    state = network({"non_local": BLOCK}).state_dict()
    affine = {"norm": "affine", "non_local": {**BLOCK, "norm": "affine"}}
    same(output(affine, norms_to_affine(state)), output({"non_local": BLOCK}, state))


def test_affine_to_norms_keeps_the_output():
    affine = {"norm": "affine", "non_local": {**BLOCK, "norm": "affine"}}
    state = network(affine).state_dict()
    same(output({"non_local": BLOCK}, affine_to_norms(state)), output(affine, state))


def test_a_folded_bias_keeps_the_output():
    state = network({"non_local": BLOCK}).state_dict()
    bare = {"non_local": {**BLOCK, "out_bias": False}}
    same(output(bare, fold_out_bias(state)), output({"non_local": BLOCK}, state))
    back = REWRITES["add_out_bias"](fold_out_bias(state))
    same(output({"non_local": BLOCK}, back), output({"non_local": BLOCK}, state))


def test_a_folded_scale_keeps_the_output():
    """In both directions; without folding, the outputs differ."""
    scaled, unscaled = ({"non_local": {**BLOCK, "scale": flag}} for flag in (True, False))
    state = network(scaled).state_dict()
    expected = output(scaled, state)
    same(output(unscaled, fold_scale(state, scaled=False)), expected)
    same(output(scaled, fold_scale(fold_scale(state, scaled=False), scaled=True)), expected)
    with pytest.raises(AssertionError):
        same(output(unscaled, state), expected, tolerance=1e-6)


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
def test_adapted_weights_keep_the_output(source: dict[str, Any], target: dict[str, Any]):
    place = {"non_local": BLOCK}
    source, target = (
        OmegaConf.to_object(OmegaConf.merge(place, tree)) for tree in (source, target)
    )
    state = network(source).state_dict()
    adapted, done = adapt(state, network(target).state_dict())
    same(output(target, adapted), output(source, state))
    assert done or target["non_local"].get("norm") == "frozen"


def test_missing_counters_start_at_0():
    state = network({}).state_dict()
    without = {key: value for key, value in state.items() if not key.endswith("tracked")}
    adapted, done = adapt(without, state)
    assert adapted.keys() == state.keys() and done == []
    assert int(adapted["backbone.norm1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("target", ["caffe2", "slowfast", "mmaction2"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", ["batch", "affine", "none"])
def test_adapting_to_a_format_keeps_the_output(target: str, bias: bool, norm: str):
    """Compare with the network that the code base would build."""
    block = {**BLOCK, "subsample": "none", "embedding_bias": bias, "out_bias": bias, "norm": norm}
    ours = {"non_local": block, "norm": "affine" if norm == "affine" else "batch"}
    state = network(ours).state_dict()
    theirs = export_state(adapt_to_format(state, target), target)
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
    adapted, done = adapt(back, network(there).state_dict())
    assert done == []
    same(output(there, adapted), output(ours, state))


@pytest.mark.parametrize(
    ("settings", "code_base", "facts", "cause"),
    [
        ({"res3": [1]}, "mmaction2", ("input", True), "pool their keys at another place"),
        ({"res3": [1]}, "torchvision", ("none", True), "has no name for"),
        ({"res3": [1]}, "pytorchvideo", ("none", True), "has no name for"),
        ({"res3": [1], "pairwise": "gaussian"}, "slowfast", ("input", True), "theta and phi"),
        ({}, "pytorchvideo", ("input", None), "pooling after res2"),
    ],
)
def test_a_network_that_a_code_base_cannot_hold_is_refused(
    settings: dict[str, Any], code_base: str, facts: tuple[Any, ...], cause: str
):
    state = network({"non_local": settings}).state_dict()
    with pytest.raises(UserError, match=cause):
        format_for(code_base, state, *facts)
