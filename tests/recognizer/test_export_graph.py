"""Exported graphs: their outputs are those of the network, for the whole family of blocks.

The limit is 1e-4: onnxruntime and torch sum in different orders, which differ between processors.
"""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nlnet.config import NonLocalConfig, ResNetConfig, StageFrames
from nlnet.errors import UserError
from nlnet.model.build import build_model
from nlnet.model.classifier import Head, VideoClassifier
from nlnet.model.non_local.axes import AXES
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.build import BLOCKS
from nlnet.model.non_local.kernels.concatenation import SMALL as SMALL_SUM
from nlnet.model.non_local.kernels.softmax import affinity_is_small
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.recognizer.export_graph import (
    CONFIG,
    OUTPUTS,
    TOLERANCE,
    ExportedNetwork,
    export_onnx,
    export_torch,
    largest_difference,
    run_onnx,
)

CLIP = (8, 24, 24)  # large enough that the kernels of linear memory are used
CHANNELS = 32
FORMATS = {"onnx": export_onnx, "torch_export": export_torch}


@pytest.fixture(autouse=True)
def packages(request: pytest.FixtureRequest) -> None:
    if "onnx" in request.node.name:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason="the extra `export` is not installed")


def randomized(model: VideoClassifier) -> VideoClassifier:
    """The model with random weights and statistics everywhere, so that no block is the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d | nn.GroupNorm):
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
            if isinstance(module, nn.BatchNorm3d):
                module.get_buffer("running_mean").uniform_(-0.5, 0.5, generator=generator)
                module.get_buffer("running_var").uniform_(0.5, 2.0, generator=generator)
        for name, parameter in model.named_parameters():
            if name.endswith(("gamma", "out.weight", "expand.weight")):
                parameter.normal_(std=0.3, generator=generator)
    model.head.get_submodule("fc").get_parameter("weight").data.normal_(generator=generator)
    return model.eval()


def all_pairwise_functions() -> VideoClassifier:
    """One network with a block of each pairwise function, at full resolution."""
    torch.manual_seed(0)
    stem = [nn.Conv3d(3, CHANNELS, 1), nn.BatchNorm3d(CHANNELS), nn.ReLU()]
    blocks = [NonLocalBlock(CHANNELS, pairwise=name) for name in PAIRWISE]
    head = Head(CHANNELS, 5, 0.0, None)
    return randomized(VideoClassifier(nn.Sequential(*stem, *blocks), head))


def resnet(**settings: Any) -> VideoClassifier:
    torch.manual_seed(0)
    blocks = NonLocalConfig(res3=[0], **settings)
    return randomized(build_model(ResNetConfig(depth=14, width=8, non_local=blocks), 5))


@pytest.mark.parametrize("form", FORMATS)
def test_each_pairwise_function_is_exported_with_its_kernel_of_linear_memory(form: str):
    queries, keys = CLIP[0] * CLIP[1] * CLIP[2], CLIP[0] * CLIP[1] * CLIP[2] // 4
    q, k = torch.empty(1, queries, CHANNELS), torch.empty(1, keys, CHANNELS)
    assert not affinity_is_small(q, k)
    assert queries * keys * CHANNELS // 2 > SMALL_SUM

    model = all_pairwise_functions()
    exported = FORMATS[form](model, CLIP, "text")
    assert exported.difference <= TOLERANCE
    assert b"/nlnet/" not in exported.data  # paths of source files on this machine
    if form == "torch_export":
        extra = {CONFIG: ""}
        program = torch.export.load(io.BytesIO(exported.data), extra_files=extra)
        assert extra[CONFIG] == "text"
        modules = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
        calls = {str(n.target) for m in modules for n in m.graph.nodes if n.op == "call_function"}
        assert not [call for call in calls if "nlnet" in call]
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])
    (video,) = session.get_inputs()
    assert (video.name, video.type) == ("video", "tensor(uint8)")
    assert video.shape == ["batch", 3, *CLIP]
    assert [output.name for output in session.get_outputs()] == list(OUTPUTS)
    assert [output.shape for output in session.get_outputs()] == [["batch", 5]] * 2
    assert session.get_modelmeta().custom_metadata_map[CONFIG] == "text"


def test_probabilities_are_those_of_the_network_and_logits_those_of_its_forward_pass():
    """The same calls on the same tensors, so that the bits are equal."""
    model = resnet()
    video = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        probabilities, logits = ExportedNetwork(model)(video)
        assert torch.equal(probabilities, model.scores(video))
        assert torch.equal(logits, model(video))


def test_a_difference_is_refused():
    def network(video: Tensor) -> tuple[Tensor, Tensor]:
        mean = video.float().mean(dim=(2, 3, 4)) / 255
        return mean, 10 * mean

    def with_error(error: float) -> float:
        return largest_difference(
            network, lambda v: (network(v)[0], network(v)[1] + error), (2, 4, 4)
        )

    assert with_error(0.0) == 0.0
    assert 0 < with_error(5e-5) < TOLERANCE
    for error in (2e-4, -1.0, float("nan")):
        with pytest.raises(UserError, match=r"^[^\n]*differ by [^\n]*nothing was written$"):
            with_error(error)
    with pytest.raises(UserError, match="instead of"):
        largest_difference(network, lambda v: (network(v)[0][:1], network(v)[1][:1]), (2, 4, 4))


FAMILY = [
    *({"pairwise": name} for name in PAIRWISE),
    *({"axes": name} for name in AXES if name != "spacetime"),
    *({"block": name, "ratio": 0.5} for name in BLOCKS if name != "non_local"),
    {"group_frames": StageFrames(res3=1)},
    {"subsample": "none", "shared_embedding": True, "gamma": True},
    {"subsample": "embedded", "scale": False, "norm": "none"},
    {"pairwise": "disentangled", "heads": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("settings", FAMILY, ids=str)
def test_each_member_of_the_family_is_exported(settings: dict[str, Any], form: str):
    assert FORMATS[form](resnet(**settings), (4, 32, 32), "").difference <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "concatenation"])
def test_a_clip_of_32_frames_of_224_pixels_is_exported_as_onnx(pairwise: str):
    exported = export_onnx(resnet(pairwise=pairwise), (32, 224, 224), "")
    assert exported.difference <= TOLERANCE
    video = torch.zeros(1, 3, 32, 224, 224, dtype=torch.uint8)
    assert [output.shape for output in run_onnx(exported.data)(video)] == [(1, 5), (1, 5)]
