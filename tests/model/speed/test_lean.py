"""The training forms that save memory have the same numbers and names, and keep fewer maps."""

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nlnet.errors import ArgumentError
from nlnet.model.classifier import Head, VideoClassifier
from nlnet.model.non_local.block import NonLocalBlock
from nlnet.model.non_local.insertion import insert_non_local
from nlnet.model.resnet3d import STAGES, Bottleneck, ResNet3d
from nlnet.model.speed.checkpointing import CheckpointedStage, save_memory
from nlnet.model.speed.folding import fold_norms
from nlnet.model.speed.lean import LeanBottleneck, LeanResNet3d, lean_convolutions
from nlnet.model.speed.lean_functions import (
    lean_convolution,
    lean_pool,
    plain_convolution,
    plain_pool,
)
from nlnet.numerics.gradients import weight_gradient
from nlnet.numerics.trust import check_network, replace_convolutions

KERNELS = {"1x1x1": (1, 1, 1), "3x1x1": (3, 1, 1), "1x3x3": (1, 3, 3), "3x3x3": (3, 3, 3)}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}
SAVINGS = {
    "lean": (True, ()),
    "checkpointed": (False, STAGES),
    "both": (True, ("res2", "res4")),
}


def convolution(kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    padding = tuple(k // 2 for k in kernel)
    conv = nn.Conv3d(6, 5, kernel, (1, stride, stride), padding, bias=False)
    return conv.double()


def norm(channels: int) -> nn.BatchNorm3d:
    layer = nn.BatchNorm3d(channels).double()
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias)
    return layer


def clip(memory_format: torch.memory_format, size: Sequence[int] = (2, 6, 4, 5, 5)) -> Tensor:
    return torch.randn(*size, dtype=torch.float64).contiguous(memory_format=memory_format)


def network() -> VideoClassifier:
    return float_network().double()


def float_network() -> VideoClassifier:
    torch.manual_seed(0)
    i3d = {"res2": [3], "res3": [3, 1], "res4": [3, 1], "res5": [1, 3]}
    backbone = ResNet3d(26, i3d, width=4, zero_init_residual=False)
    insert_non_local(backbone, {"res3": [0], "res4": [1]}, lambda _, size: NonLocalBlock(size))
    model = VideoClassifier(backbone, Head(128, 3, 0.0, None))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def answers(model: VideoClassifier, video: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    logits = model(video)
    gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    return logits, list(gradients), list(model.buffers())


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_the_weight_gradient_equals_that_of_autograd(
    kernel: tuple[int, int, int], stride: int, memory_format: torch.memory_format
):
    conv, x = convolution(kernel, stride), clip(memory_format)
    y = conv(x)
    dy = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, conv.weight, dy)
    torch.testing.assert_close(weight_gradient(dy, x, conv.weight, conv), expected)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("behind", [False, True], ids=["", "norm_out"])
@pytest.mark.parametrize("before", [False, True], ids=["", "norm_in"])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_lean_convolution_equals_the_plain_one(
    kernel: tuple[int, int, int], before: bool, behind: bool, memory_format: torch.memory_format
):
    layers = nn.ModuleList([convolution(kernel), norm(6), norm(5)])
    twins = copy.deepcopy(layers)
    x = clip(memory_format).requires_grad_()

    def run(form, layers: nn.ModuleList) -> list[Tensor]:
        conv, first, last = layers
        y = form(x, conv, norm_in=first if before else None, norm_out=last if behind else None)
        loss = (y * torch.arange(y.numel()).view_as(y).sin()).sum()
        gradients = torch.autograd.grad(loss, [x, *layers.parameters()], allow_unused=True)
        return [y, *(g for g in gradients if g is not None), *layers.buffers()]

    for lean, plain in zip(
        run(lean_convolution, layers), run(plain_convolution, twins), strict=True
    ):
        torch.testing.assert_close(lean, plain)


@pytest.mark.parametrize("before", [False, True], ids=["", "norm_in"])
@pytest.mark.parametrize("window", [((2, 1, 1), (2, 1, 1), 0), ((1, 3, 3), (1, 2, 2), (0, 1, 1))])
def test_a_lean_pool_equals_the_plain_one(window: tuple, before: bool):
    pool, layer = nn.MaxPool3d(*window), norm(6)
    twin = copy.deepcopy(layer)
    x = clip(torch.channels_last_3d).requires_grad_()

    def run(form, layer: nn.BatchNorm3d) -> list[Tensor]:
        y = form(x, pool, norm_in=layer if before else None)
        wanted = [x, *layer.parameters()] if before else [x]
        return [y, *torch.autograd.grad(y.square().sum(), wanted), *layer.buffers()]

    for lean, plain in zip(run(lean_pool, layer), run(plain_pool, twin), strict=True):
        torch.testing.assert_close(lean, plain)


@pytest.mark.parametrize("norms", [False, True], ids=["", "norms"])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_lean_convolution_under_autocast_has_errors_of_bf16(
    kernel: tuple[int, int, int], norms: bool
):
    """Output and gradients against float64: each map is rounded to 8 bits."""
    torch.manual_seed(0)
    exact = nn.ModuleList([convolution(kernel), norm(6), norm(5)])
    layers = copy.deepcopy(exact).float()
    x = clip(torch.channels_last_3d).bfloat16()
    factors = torch.randn(2, 5, 4, 5, 5).double()

    def run(layers: nn.ModuleList, x: Tensor) -> list[Tensor]:
        conv, *both = layers
        first, last = both if norms else (None, None)
        x = x.detach().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=x.dtype != torch.float64):
            y = lean_convolution(x, conv, norm_in=first, norm_out=last)
        inputs = [x, *layers.parameters()]
        gradients = torch.autograd.grad((y * factors).sum(), inputs, allow_unused=True)
        return [y.detach(), *(g for g in gradients if g is not None), *layers.buffers()]

    found, wanted = run(layers, x), run(exact, x.double())
    assert found[0].dtype == torch.bfloat16
    assert len(found) == len(wanted)
    for ours, true in zip(found, wanted, strict=True):
        assert (ours - true).double().norm() < 0.06 * true.double().norm() + 1e-9


def test_a_lean_network_under_autocast_is_as_exact_as_the_plain_one_and_keeps_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """As in a run, convolutions whose kernel is wrong on this processor are replaced before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    exact = network()
    plain = copy.deepcopy(exact).float()
    lean = copy.deepcopy(plain)
    save_memory(lean, lean=True, checkpoint_stages=())
    video = torch.randn(2, 3, 4, 32, 32)
    for model in (lean, plain):
        answers = check_network(
            float_network,
            tuple(video.shape),
            device=torch.device("cpu"),
            dtype=torch.bfloat16,
            channels_last=False,
            lean=lean_convolutions(model),
        )
        replace_convolutions(model, *answers, remedy="")

    def gradients(model: VideoClassifier, video: Tensor, autocast: bool) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = model(video).square().sum()
        parts = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([part.double().flatten() for part in parts])

    true = gradients(exact, video.double(), False)
    errors = [(gradients(model, video, True) - true).norm() for model in (lean, plain)]
    assert errors[0] < 1.5 * errors[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = [kept_bytes(model, video) for model in (lean, plain)]
    assert kept[0] < 0.75 * kept[1]
    assert kept[0] < 0.75 * kept_bytes(lean, video)


def test_gradcheck_of_a_lean_convolution():
    conv, first, last = convolution((3, 1, 1)), norm(6), norm(5)
    x = clip(torch.channels_last_3d, (2, 6, 3, 2, 2)).requires_grad_()
    torch.autograd.gradcheck(
        lambda x, *_: lean_convolution(x, conv, norm_in=first, norm_out=last),
        (x, conv.weight, first.weight, first.bias, last.weight, last.bias),
    )


@pytest.mark.parametrize(("lean", "stages"), SAVINGS.values(), ids=SAVINGS)
def test_a_network_that_saves_memory_gives_the_same_numbers(lean: bool, stages: tuple[str, ...]):
    plain = network()
    saving = copy.deepcopy(plain)
    parameters = list(saving.parameters())
    save_memory(saving, lean=lean, checkpoint_stages=stages)
    assert list(saving.state_dict()) == list(plain.state_dict())
    assert all(a is b for a, b in zip(saving.parameters(), parameters, strict=True))
    video = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    logits, gradients, statistics = answers(saving, video)
    expected_logits, expected_gradients, expected_statistics = answers(plain, video)
    # The forward passes run the same operators in the same order, so they agree on every processor.
    assert torch.equal(logits, expected_logits)
    assert all(map(torch.equal, statistics, expected_statistics))
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("lean", "stages"), SAVINGS.values(), ids=SAVINGS)
def test_a_network_that_saves_memory_is_evaluated_and_folded_like_the_plain_one(
    lean: bool, stages: tuple[str, ...]
):
    plain = network().eval()
    saving = copy.deepcopy(plain)
    save_memory(saving, lean=lean, checkpoint_stages=stages)
    assert not any(module.training for module in saving.modules())
    video = torch.randn(1, 3, 4, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        # In evaluation, both forms run the operators of the plain form.
        assert torch.equal(saving(video), plain(video))
        assert torch.equal(fold_norms(saving)(video), fold_norms(plain)(video))


def test_the_right_modules_are_replaced():
    model = network()
    save_memory(model, lean=True, checkpoint_stages=("res4",))
    assert type(model.backbone) is LeanResNet3d
    assert not any(isinstance(module, Bottleneck) for module in model.modules())
    assert type(model.backbone.get_submodule("res3.block1")) is LeanBottleneck
    assert type(model.backbone.get_submodule("res4")) is CheckpointedStage


@pytest.mark.parametrize(("lean", "stages"), SAVINGS.values(), ids=SAVINGS)
def test_a_network_that_saves_memory_keeps_fewer_bytes(lean: bool, stages: tuple[str, ...]):
    plain = network()
    saving = copy.deepcopy(plain)
    save_memory(saving, lean=lean, checkpoint_stages=stages)
    video = torch.randn(2, 3, 8, 64, 64, dtype=torch.float64)
    assert kept_bytes(saving, video) < 0.7 * kept_bytes(plain, video)


def kept_bytes(model: nn.Module, video: Tensor) -> int:
    """Bytes that autograd keeps: each storage once, without the weights."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(video)
    assert logits.requires_grad
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)


def test_a_network_with_a_frozen_stem_has_the_same_gradients():
    plain = network()
    for parameter in plain.backbone.get_submodule("conv1").parameters():
        parameter.requires_grad_(False)
    lean = copy.deepcopy(plain)
    save_memory(lean, lean=True, checkpoint_stages=("res2",))
    video = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    for model in (plain, lean):
        model(video).square().sum().backward()
    for found, expected in zip(lean.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-7, atol=1e-9)


def test_an_unknown_stage_is_refused():
    with pytest.raises(ArgumentError, match=r"^checkpoint_stages=res9 is unknown"):
        save_memory(network(), lean=True, checkpoint_stages=("res9",))
