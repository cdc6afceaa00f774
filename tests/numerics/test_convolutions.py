"""The check of convolutions: it accepts right kernels, and finds wrong ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nlnet.numerics.convolutions import Convolution, convolutions_of, relative_error
from nlnet.numerics.forms import Geometry, in_float32, plain, sliced
from nlnet.numerics.trust import tolerance

CPU = torch.device("cpu")
GEOMETRIES = {
    "pointwise": Convolution(
        (2, 6, 3, 5, 4), (8, 6, 1, 1, 1), (1,) * 3, (0,) * 3, (1,) * 3, 1, True
    ),
    "pointwise, stride": Convolution(
        (2, 6, 4, 7, 8), (8, 6, 1, 1, 1), (1, 2, 2), (0,) * 3, (1,) * 3, 1, True
    ),
    "temporal": Convolution(
        (1, 8, 6, 4, 4), (4, 8, 3, 1, 1), (1,) * 3, (1, 0, 0), (1,) * 3, 1, True
    ),
    "spatial, stride": Convolution(
        (2, 4, 3, 9, 8), (6, 4, 1, 3, 3), (1, 2, 2), (0, 1, 1), (1,) * 3, 1, True
    ),
    "stem": Convolution(
        (2, 3, 8, 16, 16), (8, 3, 5, 7, 7), (2, 2, 2), (2, 3, 3), (1,) * 3, 1, False
    ),
    "dilation": Convolution(
        (1, 4, 5, 9, 9), (4, 4, 1, 3, 3), (1,) * 3, (0, 2, 2), (1, 2, 2), 1, True
    ),
    "groups": Convolution(
        (2, 6, 4, 6, 6), (9, 2, 3, 3, 3), (1, 2, 1), (1, 1, 1), (1,) * 3, 3, True
    ),
    "depthwise": Convolution(
        (2, 4, 4, 6, 6), (4, 1, 3, 3, 3), (1,) * 3, (1, 1, 1), (1,) * 3, 4, True
    ),
}
each_geometry = pytest.mark.parametrize("conv", GEOMETRIES.values(), ids=GEOMETRIES)


def error(
    conv: Convolution, form: Callable, dtype: torch.dtype = torch.float32, **options
) -> float:
    options = {"device": CPU, "channels_last": True} | options
    return relative_error(conv, form, dtype=dtype, **options)


@each_geometry
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_exact_projections_are_those_of_torch_in_float64(
    conv: Convolution, channels_last: bool
):
    assert error(conv, plain, torch.float64, channels_last=channels_last) < 1e-14


@each_geometry
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_right_kernel_is_within_the_tolerance(conv: Convolution, dtype: torch.dtype):
    assert error(conv, plain, dtype) < tolerance(CPU, dtype)


class Wrong(torch.autograd.Function):
    """The convolution in float32 whose output or one of its gradients is changed."""

    @staticmethod
    def forward(ctx, x, weight, conv, part, change):
        ctx.save_for_backward(x, weight)
        ctx.others = conv, part, change
        with torch.enable_grad():
            y = plain(x, weight, conv)
        return change(y) if part == "y" else y

    @staticmethod
    def backward(ctx, dy):
        conv, part, change = ctx.others
        x, weight = (t.detach().requires_grad_() for t in ctx.saved_tensors)
        with torch.enable_grad():
            dx, dweight = torch.autograd.grad(plain(x, weight, conv), (x, weight), dy)
        return (
            change(dx) if part == "dx" else dx,
            change(dweight) if part == "dweight" else dweight,
            None,
            None,
            None,
        )


def one_channel(t: Tensor) -> Tensor:
    t = t.clone()
    t[:, -1] *= 1.5
    return t


def one_nan(t: Tensor) -> Tensor:
    t = t.clone()
    t[0, -1, -1, -1, -1] = float("nan")
    return t


CHANGES = {
    "7 % too large": lambda t: 1.07 * t,
    "one channel": one_channel,
    "one NaN": one_nan,
    "zero": torch.zeros_like,
    "shifted": lambda t: t.roll(1, -1) if t.shape[-1] > 1 else t.roll(1, 0),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", ["y", "dx", "dweight"])
@pytest.mark.parametrize("name", ["pointwise, stride", "spatial, stride", "groups"])
def test_a_wrong_result_is_found(name: str, part: str, change: str):
    def form(x: Tensor, weight: Tensor, conv: Geometry) -> Tensor:
        return Wrong.apply(x, weight, conv, part, CHANGES[change])

    assert error(GEOMETRIES[name], form) > tolerance(CPU, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", [sliced, in_float32])
def test_the_other_forms_are_right(form: Callable, dtype: torch.dtype):
    assert error(GEOMETRIES["pointwise, stride"], form, dtype) < tolerance(CPU, dtype)


def test_the_convolutions_of_a_network():
    network = lambda: nn.Sequential(  # noqa: E731
        nn.Conv3d(3, 4, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
        nn.ReLU(),
        nn.Conv3d(4, 4, 1),
        nn.Conv3d(4, 4, 1),
    )
    first, second = convolutions_of(network, (2, 3, 4, 8, 8)).items()
    assert first[1] == ["0"]
    assert (first[0].x, first[0].stride, first[0].input_gradient) == (
        (2, 3, 4, 8, 8),
        (1, 2, 2),
        False,
    )
    assert second[1] == ["2", "3"]
    assert (second[0].x, second[0].input_gradient) == ((2, 4, 4, 4, 4), True)
