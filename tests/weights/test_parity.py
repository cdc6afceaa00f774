"""Outputs of published networks, compared number for number with ours through the key maps.

A golden file describes one reference network: names and shapes of its parameters, the rule that
fills them, the input, the logits. NLNET_PARITY names the folder of the golden files; without it,
../shared/parity beside the repository is used. The compact files in parity_facts/ make the same
comparison without the folder.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nlnet.config import ResNetConfig
from nlnet.model.build import build_model
from nlnet.model.classifier import VideoClassifier
from nlnet.weights.keymap import from_nlnet
from nlnet.weights.recognize import recognize
from nlnet.weights.rewrite import export_state, import_state
from nlnet.weights.sources.all import FORMATS
from nlnet.weights.sources.caffe2 import from_caffe2
from nlnet.weights.sources.mmaction2 import from_mmaction2
from nlnet.weights.sources.pytorchvideo import from_pytorchvideo
from nlnet.weights.sources.slowfast import from_slowfast
from nlnet.weights.sources.torchvision import from_torchvision

Golden = dict[str, Any]
Record = Callable[[str, object], None]  # pytest's record_property, for --junitxml
Parameters = list[tuple[str, list[int], str]]

CAFFE2 = "facebookresearch/video-nonlocal-net"
SLOWFAST = "facebookresearch/SlowFast"
TOLERANCE = {CAFFE2: 1e-8}  # its engine rounds the scale to float32; else 1e-9
TABLES = ("SUMMARY.json", "op_semantics.json")  # not golden files
HERE = Path(__file__).parent / "parity_facts"


def folder() -> Path:
    root = Path(__file__).parents[2]
    return Path(os.environ.get("NLNET_PARITY", root.parent / "shared" / "parity"))


def is_network(path: Path, golden: Any) -> bool:
    """Whether this is a golden file, and not a table or a temporal shift network (unsupported).

    Any other file must be a network, or its case fails.
    """
    shifts = isinstance(golden, dict) and "TSM" in golden.get("backbone", {}).get("type", "")
    return path.name not in TABLES and not shifts


def cases() -> list[Any]:
    """One case per golden file; the large ones are slow, unless NLNET_PARITY is set."""
    found = []
    for path in sorted(folder().rglob("*.json")):
        golden = json.loads(path.read_text())
        if is_network(path, golden):
            large = isinstance(golden, dict) and golden.get("size", 0) > 64
            heavy = large and "NLNET_PARITY" not in os.environ
            marks = [pytest.mark.slow] if heavy else []
            found.append(pytest.param(path, id=str(path.relative_to(folder())), marks=marks))
    return found


@pytest.mark.skipif("NLNET_PARITY" not in os.environ, reason="NLNET_PARITY is not set")
def test_the_folder_holds_golden_files():
    assert cases()


def test_only_tables_and_shifts_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NLNET_PARITY", str(tmp_path))
    files: dict[str, Any] = {
        "a/SUMMARY.json": {},
        "op_semantics.json": [],
        "tsm.json": {"backbone": {"type": "ResNetTSM"}},
        "a/network.json": {"params": [], "logits": [], "size": 64},
        "half.json": {"params": [], "size": 256},
        "list.json": [],
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    assert [case.id for case in cases()] == ["a/network.json", "half.json", "list.json"]


@pytest.mark.parametrize("path", cases())
def test_parity_with_a_golden_file(path: Path, record_property: Record):
    golden = json.loads(path.read_text())
    parameters = [(name, shape, kind) for name, shape, kind in golden["params"]]
    theirs = fill(golden, parameters)
    if golden["source"] == CAFFE2:
        check_caffe2(golden, theirs, record_property)
        return
    model = load(golden, theirs)
    checks = {
        slowfast_stage(name): (golden["stage_shapes"][name], facts)
        for name, facts in golden.get("intermediates", {}).items()
    }
    if "feature" in golden:
        checks["res5"] = (golden["feature_shape"], golden["feature"])

    def check(name: str, output: Tensor) -> None:
        if name in checks:
            shape, facts = checks.pop(name)
            if len(shape) == 4:  # frame by frame: frames are in the batch there
                output = output.squeeze(0).transpose(0, 1).contiguous()
            assert list(output.shape) == shape
            first = facts.get("first", [])
            check_statistics(output, facts, first, range(len(first)), 1e-9, correction=1)

    with visited(model, check):
        logits = logits_of(model, clip(golden))
    assert not checks
    difference = distance(logits[0], golden["logits"])
    record_property("float64", difference)
    assert difference <= 1e-9
    assert count(model) == golden["n_parameters"]
    assert blocks(model, golden) == set(golden.get("nonlocal_modules", []))


def check_caffe2(golden: Golden, theirs: dict[str, Tensor], record: Record) -> None:
    """Compare with the authors' engine in float32, in float64 and fully convolutional."""
    blobs = b"".join(tensor.numpy().tobytes() for tensor in theirs.values())
    assert hashlib.sha256(blobs).hexdigest() == golden["param_sha256"]
    model = load(golden, theirs)
    assert count(model) == golden["param_count"]["learnable_blobs"]
    running = [buffer for name, buffer in model.named_buffers() if ".running_" in name]
    assert sum(buffer.numel() for buffer in running) == golden["param_count"]["bn_running"]
    assert blocks(model, golden) == {block["prefix"] for block in golden["nonlocal_blocks"]}

    video = clip(golden)
    assert hashlib.sha256(video.numpy().tobytes()).hexdigest() == golden["input_sha256"]
    settings = golden["nonlocal_cfg"]
    unscaled = settings["USE_SOFTMAX"] and not settings["USE_SCALE"]
    tolerance = 2e-4 if unscaled and golden["nonlocal_blocks"] else 1e-5
    difference = distance(logits_of(model, video)[0], golden["logits"])
    record("float32", difference)
    assert difference <= tolerance

    checks = {caffe2_part(name, facts): facts for name, facts in golden["checkpoints"].items()}
    met = set()

    def check(name: str, output: Tensor) -> None:
        if name in checks:
            met.add(name)
            facts = checks[name]
            statistics = {"mean": facts["mean_f64"], "std": facts["std_f64"]}
            values, indices = facts["values_f64"], facts["idx"]
            theirs = as_theirs(name, output, facts["shape"])
            check_statistics(theirs, statistics, values, indices, 1e-8)

    model.double()
    with visited(model, check):
        logits = logits_of(model, video.double())
    assert {"conv1", "pool1", "pool2", "res2", "res3", "res4", "res5"} <= met
    inside = {name.rsplit(".", 1)[-1] for name in met if name.count(".") == 2}
    assert not golden["nonlocal_blocks"] or {"theta", "phi", "g", "out", "pairwise"} <= inside
    difference = distance(logits[0], golden["logits_f64"])
    record("float64", difference)
    assert difference <= TOLERANCE[CAFFE2]
    if "fully_conv" in golden:
        difference = check_fully_convolutional(golden["fully_conv"], golden, model)
        record("fully convolutional", difference)


def check_fully_convolutional(facts: Golden, golden: Golden, model: VideoClassifier) -> float:
    """Compare the logits at every window and the mean probabilities; return the difference."""
    video = clip({**golden, "size": facts["size"]})
    assert hashlib.sha256(video.numpy().tobytes()).hexdigest() == facts["input_sha256"]
    with torch.no_grad():
        windows = model.window_logits(video.double())  # (1, P, K)
        scores = model.scores(video.double())
    difference = distance(windows[0].mT.flatten(), facts["logits_f64"])
    assert difference <= TOLERANCE[CAFFE2]
    expected = np.asarray(facts["softmax_f64"]).reshape(-1)
    if expected.size == scores.numel():  # averaged over the windows already
        assert distance(scores[0], expected) <= 1e-7
    else:
        assert distance(windows.softmax(2)[0].mT.flatten(), expected) <= 1e-7
    return difference


def facts() -> list[Any]:
    paths = sorted(HERE.rglob("*.json"))
    heavy = {path for path in paths if json.loads(path.read_text())["size"] > 64}
    return [
        pytest.param(
            path,
            id=path.relative_to(HERE).as_posix(),
            marks=[pytest.mark.slow] if path in heavy else [],
        )
        for path in paths
    ]


@pytest.mark.parametrize("path", facts())
def test_parity_with_a_committed_fact(path: Path, record_property: Record):
    """The names come from our key maps, the kinds from our modules; the file has their hash."""
    fact = json.loads(path.read_text())
    parameters = parameters_of(fact)
    known = 2 if fact["source"] == CAFFE2 else 3  # its rule goes by names, not by kinds
    listing = json.dumps(sorted(list(entry[:known]) for entry in parameters)).encode()
    assert hashlib.sha256(listing).hexdigest() == fact["params_sha256"]
    model = load(fact, fill(fact, parameters))
    logits = logits_of(model.double(), clip(fact).double())
    expected = fact["logits"]
    largest = fact["largest_logit"]
    difference = float(np.abs(logits[0, : len(expected)].numpy() - expected).max() / largest)
    record_property("float64", difference)
    assert difference <= TOLERANCE.get(fact["source"], 1e-9)


def parameters_of(fact: Golden) -> Parameters:
    """Return the reference's parameters, as our network and key maps describe them."""
    with torch.device("meta"):
        model = build_model(model_config(fact), fact["classes"])
    state = model.state_dict()
    form = FORMATS[fact["format"]]
    theirs = export_state(state, fact["format"], frames=fact["frame_kernels"])
    kinds = {from_nlnet(key, form): kind(key, value, fact) for key, value in state.items()}
    return [(name, list(tensor.shape), kinds[name]) for name, tensor in theirs.items()]


def kind(key: str, tensor: Tensor, fact: Golden) -> str:
    """Return the kind of a parameter, as the golden files name it."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return "count"
    if leaf != "weight":
        return leaf
    if tensor.dim() == 1 and "pairwise" not in key:
        return "norm_scale_residual" if key.endswith("norm_c.weight") else "norm_scale"
    small = fact["small_embeddings"] and key.endswith((".theta.weight", ".phi.weight"))
    return "weight_small" if small else "weight"


def model_config(golden: Golden) -> ResNetConfig:
    """Read the settings inside a file."""
    source = golden["source"].split()[0]
    size = golden["size"]
    if source == CAFFE2:
        return from_caffe2(golden["model_cfg"], golden["nonlocal_cfg"])
    if source == SLOWFAST:
        return from_slowfast(golden["settings"], golden["frames"], size)
    if source == "open-mmlab/mmaction2":
        return from_mmaction2(golden["backbone"], golden["head"])
    if source == "facebookresearch/pytorchvideo":
        return from_pytorchvideo(golden["settings"], size)
    assert source == "pytorch/vision", f"no reader for {source}"
    return from_torchvision(int(golden["builder"].rsplit("resnet", 1)[-1]))


def fill(golden: Golden, parameters: Parameters) -> dict[str, Tensor]:
    """Return the reference's state, by the rule of its source."""
    if golden["source"] == CAFFE2:
        gain = golden["qk_gain"]
        return {name: caffe2_blob(name, shape, gain) for name, shape, _ in parameters}
    return {name: parameter(name, shape, kind) for name, shape, kind in parameters}


def caffe2_blob(name: str, shape: list[int], gain: float) -> Tensor:
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if len(shape) >= 2:
        values = rng.standard_normal(shape) * math.sqrt(1 / math.prod(shape[1:]))
        if name.endswith(("_theta_w", "_phi_w")):
            values = values * gain
    elif name.endswith("_s"):
        values = (
            rng.uniform(0.1, 0.5, shape) if "branch2c" in name else rng.uniform(0.5, 1.5, shape)
        )
    elif name.endswith("_riv"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape) * 0.1
    return torch.from_numpy(values.astype(np.float32))


def parameter(name: str, shape: list[int], kind: str) -> Tensor:
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if kind == "count":
        return torch.zeros(shape, dtype=torch.int64)
    if kind in ("weight", "weight_small"):
        values = rng.standard_normal(shape) * math.sqrt(1 / math.prod(shape[1:]))
        return torch.from_numpy(values * (0.02 if kind == "weight_small" else 1.0))
    if kind in ("norm_scale", "running_var"):
        return torch.from_numpy(rng.uniform(0.5, 1.5, shape))
    if kind == "norm_scale_residual":
        return torch.from_numpy(rng.uniform(0.1, 0.5, shape))
    assert kind in ("bias", "running_mean"), f"no rule for {kind}"
    return torch.from_numpy(rng.standard_normal(shape) * 0.1)


def clip(golden: Golden) -> Tensor:
    """Return the input of a file; an image is a clip of one frame."""
    shape = (1, 3, max(golden["frames"], 1), golden["size"], golden["size"])
    values = np.random.RandomState(0).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32) if golden["source"] == CAFFE2 else values)


def load(golden: Golden, theirs: dict[str, Tensor]) -> VideoClassifier:
    """Load all parameters into our network; converting them back keeps every bit."""
    form = recognize(theirs)
    assert form is not None
    ours = import_state(theirs, form)
    frames = all(theirs[key].dim() != 4 for key in theirs if "concat" not in key)
    back = export_state(ours, form, frames=frames)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)
    model = build_model(model_config(golden), len(theirs_head(theirs)))
    if any(tensor.dtype == torch.float64 for tensor in theirs.values()):
        model.double()
    model.load_state_dict(ours, strict=True)
    return model.eval()


def theirs_head(theirs: dict[str, Tensor]) -> Tensor:
    """Return the bias of the classifier, which is the last parameter in every source."""
    return list(theirs.values())[-1]


def logits_of(model: VideoClassifier, video: Tensor) -> Tensor:
    with torch.no_grad():
        return model(video)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def blocks(model: nn.Module, golden: Golden) -> set[str]:
    """Return the positions of our non-local blocks, with the names of the source."""
    prefixes = {
        CAFFE2: "nonlocal_conv{s}_{i}",
        SLOWFAST: "s{s}.pathway0_nonlocal{i}",
        "open-mmlab/mmaction2": "backbone.layer{l}.{i}.non_local_block",
    }
    found = [name.split(".") for name, _ in model.named_modules() if name.count(".") == 2]
    places = [
        (int(stage.removeprefix("res")), int(block.removeprefix("nl")))
        for _, stage, block in found
        if block.startswith("nl")
    ]
    template = prefixes.get(golden["source"], "")
    return {template.format(s=stage, l=stage - 1, i=i) for stage, i in places}


@contextmanager
def visited(model: VideoClassifier, visit: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `visit` with the name and output of each module, before in-place changes."""

    def show(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: visit(name, output)

    handles = [
        module.register_forward_hook(show(name)) for name, module in model.backbone.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def slowfast_stage(name: str) -> str:
    return {"s1": "pool1", "pathway0_pool": "pool2"}.get(name, name.replace("s", "res"))


def caffe2_part(name: str, facts: Golden) -> str:
    """Return the name of our module with this output of the authors' network, if we have one."""
    if name.startswith("nonlocal_conv"):
        place, part = name.removeprefix("nonlocal_conv").split(".")
        stage, i = place.split("_")
        parts = {"sum": "", "sum_trans_trans": "", "bn": ".norm", "y": ".pairwise"}
        part = parts.get(part, f".{part}")
        return f"res{stage}.nl{i}{part}"
    if facts["blob"].startswith("nonlocal_conv"):  # the end of a stage
        return name.removesuffix("_end")
    return name.removesuffix("_end").replace("_block", ".block")


def as_theirs(name: str, output: Tensor, shape: list[int]) -> Tensor:
    """Convert an output to the authors' layout: channels second, groups of frames in the batch."""
    if name.endswith(".pairwise"):  # (groups, N, C)
        return output.mT.reshape(shape)
    if name.endswith((".theta", ".phi", ".g", ".out")):  # (1, T, H, W, C)
        output = output.movedim(-1, 1)
    groups = output.unflatten(2, (shape[0], -1)).squeeze(0)  # (C, groups, T / groups, H, W)
    return groups.transpose(0, 1).reshape(shape)


def check_statistics(
    output: Tensor,
    facts: Golden,
    values: list[float],
    indices: Sequence[int],
    tolerance: float,
    *,
    correction: int = 0,
) -> None:
    """Compare mean, deviation and single elements, relative to the output's largest magnitude."""
    largest = float(output.abs().max())
    assert abs(float(output.mean()) - facts["mean"]) <= tolerance * largest
    assert abs(float(output.std(correction=correction)) - facts["std"]) <= tolerance * largest
    for i, value in zip(indices, values, strict=True):
        assert abs(float(output.flatten()[i]) - value) <= tolerance * largest


def distance(ours: Tensor, theirs: Any) -> float:
    """Return the largest difference divided by the largest number of the reference."""
    reference = np.asarray(theirs, dtype=np.float64).reshape(-1)
    difference = np.abs(ours.double().numpy().reshape(-1) - reference)
    return float(difference.max() / np.abs(reference).max())
