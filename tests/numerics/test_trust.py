"""A convolution whose kernel is wrong is replaced by a right form, and said."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from nlnet.errors import UserError
from nlnet.numerics import trust
from nlnet.numerics.convolutions import Convolution, convolutions_of, relative_error
from nlnet.numerics.forms import FORMS, ReplacedConv3d, plain
from nlnet.numerics.trust import (
    Verdict,
    check_convolutions,
    checked_dtype,
    replace_convolutions,
    same_kernel_in_every_process,
    tolerance,
)

CPU = torch.device("cpu")


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
        nn.ReLU(),
        nn.Conv3d(6, 8, 1, (1, 2, 2), bias=False),
    )


def found(dtype: torch.dtype = torch.bfloat16) -> dict[Convolution, Verdict]:
    convolutions = list(convolutions_of(network, (2, 3, 2, 16, 16)))
    return dict(check_convolutions(convolutions, device=CPU, dtype=dtype, channels_last=True))


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.usefixtures("wrong_kernel")
def test_the_wrong_kernel_is_found_and_replaced():
    model = network()
    same = copy.deepcopy(model)
    verdicts = found()
    assert [verdict.form for verdict in verdicts.values()] == ["plain", "sliced"]
    convolutions = convolutions_of(network, (2, 3, 2, 16, 16))
    (line,) = replace_convolutions(model, convolutions, verdicts, remedy="")
    assert line.startswith("2: ") and "wrong" in line and "'sliced'" in line
    assert type(model[0]) is nn.Conv3d and type(model[2]) is ReplacedConv3d
    assert list(model.state_dict()) == list(same.state_dict())
    video = torch.randn(2, 3, 2, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, wrong = model(video), same(video)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, wrong)  # its forward pass is right
    y.float().square().sum().backward()
    wrong.float().square().sum().backward()
    expected = network()
    expected.load_state_dict(same.state_dict())
    expected(video).square().sum().backward()
    torch.testing.assert_close(model[2].weight.grad, expected[2].weight.grad, rtol=0.05, atol=0.5)
    assert same[2].weight.grad.isnan().any()


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("channels", [4, 16, 64])
def test_a_temporal_kernel_over_two_frames_has_a_right_form(channels: int, channels_last: bool):
    """oneDNN 3.12 computes a wrong weight gradient on processors with AVX512-BF16."""
    conv = Convolution(
        (2, channels, 2, 8, 8), (16, channels, 3, 1, 1), (1,) * 3, (1, 0, 0), (1,) * 3, 1, True
    )
    where = {"device": CPU, "dtype": torch.bfloat16, "channels_last": channels_last}
    ((_, verdict),) = check_convolutions([conv], **where)
    assert verdict.form is not None
    assert relative_error(conv, FORMS[verdict.form], **where) <= tolerance(CPU, torch.bfloat16)


@pytest.mark.usefixtures("wrong_kernel")
def test_float32_is_right_there():
    assert [verdict.form for verdict in found(torch.float32).values()] == ["plain", "plain"]


def test_the_answers_are_kept(empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    first = found()
    monkeypatch.setattr(trust, "relative_error", None)  # a second check would call it
    assert found() == first
    (file,) = empty_cache.rglob("convolutions-*.json")
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(empty_cache / "torch"))
    file.write_text("{")
    assert found() == first  # a damaged file is written anew
    monkeypatch.setattr(trust, "relative_error", None)
    assert found() == first


@pytest.mark.usefixtures("empty_cache")
def test_a_cache_that_cannot_be_written_does_no_harm(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_HOME", "/dev/null/torch")
    assert [verdict.form for verdict in found().values()] == ["plain", "plain"]


@pytest.mark.usefixtures("empty_cache")
def test_float32_is_taken_where_no_other_form_is_right(monkeypatch: pytest.MonkeyPatch):
    for name in ("plain", "sliced"):
        monkeypatch.setitem(FORMS, name, lambda x, w, conv: 1.5 * plain(x, w, conv))
    verdicts = found()
    assert [verdict.form for verdict in verdicts.values()] == ["float32", "float32"]
    model = network()
    replace_convolutions(model, convolutions_of(network, (2, 3, 2, 16, 16)), verdicts, remedy="")
    video = torch.randn(2, 3, 2, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(video)
    assert y.dtype == torch.bfloat16
    same = network()
    same.load_state_dict(model.state_dict())
    torch.testing.assert_close(y.float(), same(video), rtol=0.02, atol=0.02)


@pytest.mark.usefixtures("empty_cache")
def test_a_convolution_without_a_right_form_is_refused(monkeypatch: pytest.MonkeyPatch):
    for name in FORMS:
        monkeypatch.setitem(FORMS, name, lambda x, w, conv: 1.5 * plain(x, w, conv))
    convolutions = convolutions_of(network, (2, 3, 2, 16, 16))
    with pytest.raises(UserError, match=r"^0: .* wrong .*; use float32$"):
        replace_convolutions(network(), convolutions, found(), remedy="use float32")


def test_a_bias_is_added():
    conv = nn.Conv3d(4, 6, 1, (1, 2, 2))
    x = torch.randn(1, 4, 2, 6, 6)
    torch.testing.assert_close(ReplacedConv3d(conv, "sliced")(x), conv(x))
    assert "form=sliced" in repr(ReplacedConv3d(conv, "sliced"))


CUDA = torch.device("cuda")


def cut(t: torch.Tensor) -> torch.Tensor:
    """The 10 bits of the mantissa that TF32 has; the others are dropped, not rounded."""
    return (t.view(torch.int32) & ~0x1FFF).view(torch.float32)


def rounded(t: torch.Tensor) -> torch.Tensor:
    return cut((t.view(torch.int32) + 0x1000).view(torch.float32))


class InTf32(torch.autograd.Function):
    """A convolution whose factors are rounded to TF32, also those of its gradients."""

    @staticmethod
    def forward(ctx, x, weight, conv, to_tf32, scale):
        ctx.save_for_backward(x, weight)
        ctx.others = conv, to_tf32, scale
        return plain(to_tf32(x), to_tf32(weight), conv)

    @staticmethod
    def backward(ctx, dy):
        conv, to_tf32, scale = ctx.others
        x, weight = (to_tf32(t.detach()).requires_grad_() for t in ctx.saved_tensors)
        with torch.enable_grad():
            y = plain(x, weight, conv)
        dx, dweight = torch.autograd.grad(y, (x, weight), to_tf32(dy.contiguous()))
        return dx, scale * dweight, None, None, None


@pytest.mark.parametrize("to_tf32", [cut, rounded])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 1), (1, 3, 3)])
def test_tf32_is_within_the_tolerance_of_a_gpu_and_an_error_of_1_percent_is_not(
    size: tuple[int, ...], to_tf32
):
    padding = tuple(k // 2 for k in size)
    conv = Convolution((2, 64, 4, 12, 12), (32, 64, *size), (1, 2, 2), padding, (1,) * 3, 1, True)

    def error(scale: float) -> float:
        return relative_error(
            conv,
            lambda x, weight, conv: InTf32.apply(x, weight, conv, to_tf32, scale),
            device=CPU,
            dtype=torch.float32,
            channels_last=False,
        )

    assert tolerance(CPU, torch.float32) < error(1.0) < tolerance(CUDA, torch.float32)
    assert error(1.01) > tolerance(CUDA, torch.float32)


def test_float32_is_checked_where_it_is_tf32(monkeypatch: pytest.MonkeyPatch):
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    for tf32, expected in (("tf32", torch.float32), ("ieee", None)):
        conv.fp32_precision = tf32
        assert checked_dtype(CUDA, None) is expected
        assert checked_dtype(CPU, None) is None
        for device in (CPU, CUDA):
            assert checked_dtype(device, torch.float16) is torch.float16
    conv.fp32_precision = before


@pytest.mark.parametrize("benchmark", [True, False])
def test_kernels_that_are_chosen_by_their_time_are_checked_in_each_process(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, benchmark: bool
):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
    assert same_kernel_in_every_process(CPU)
    assert same_kernel_in_every_process(CUDA) is not benchmark
    monkeypatch.setattr(trust, "same_kernel_in_every_process", lambda device: not benchmark)
    found()
    assert bool(list(empty_cache.rglob("convolutions-*.json"))) is not benchmark
    calls = []
    real = trust.relative_error
    monkeypatch.setattr(
        trust, "relative_error", lambda *args, **named: calls.append(1) or real(*args, **named)
    )
    found()
    assert bool(calls) is benchmark


@pytest.mark.usefixtures("wrong_kernel")
def test_the_wrong_kernel_is_found_in_float16():
    assert [verdict.form for verdict in found(torch.float16).values()] == ["plain", "sliced"]
