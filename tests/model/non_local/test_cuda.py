"""The kernels on a CUDA device: exact, with linear memory for the head sizes of a ResNet-50."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from nlnet.model.non_local.kernels.concatenation import concatenation
from nlnet.model.non_local.kernels.cuda_forms import Problem, possible_forms
from nlnet.model.non_local.kernels.dot_product import dot_product
from nlnet.model.non_local.kernels.softmax import CUDA_FORMS, softmax_attention
from tests.model.non_local import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
SIZES = {  # name -> N, M, d, e
    "narrow": (784, 196, 64, 64),
    "res3": (1500, 700, 256, 256),
    "res4": (784, 196, 512, 512),
    "res4, not pooled": (1111, 1111, 512, 512),
    "res4, long": (4000, 1301, 512, 512),
    "res4, gaussian": (3136, 3001, 1024, 512),
    "odd": (2000, 2001, 321, 203),
}
Attention = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted).norm() / wanted.norm())


def maps(n: int, m: int, d: int, e: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, n, d), (2, m, d), (2, m, e)]
    return [torch.randn(s, device="cuda").to(dtype).requires_grad_() for s in shapes]


def assert_exact(
    function: Callable[..., Tensor],
    oracle: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    further: Sequence[float] = (),
) -> None:
    """Output and gradients equal those of the equation in float64 on the same inputs."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y, wanted = function(*inputs, *further), oracle(*exact, *further)
    tolerance = TOLERANCE[inputs[0].dtype]
    assert y.dtype == inputs[-1].dtype
    assert relative(y.detach(), wanted.detach()) < tolerance
    cotangent = torch.randn_like(wanted)
    got = torch.autograd.grad(y, inputs, cotangent.to(y.dtype))
    for a, b in zip(got, torch.autograd.grad(wanted, exact, cotangent), strict=True):
        assert a.dtype == inputs[0].dtype
        assert relative(a, b) < tolerance


def forms_of(size: tuple[int, ...], dtype: torch.dtype) -> list[str]:
    """The possible forms, without FlashAttention and cuDNN where this GPU has no such kernel."""
    n, m, d, e = size
    forms = possible_forms(Problem(str(dtype).removeprefix("torch."), d, e, n, m))
    inputs = maps(64, 64, d, e, dtype)
    for form in {"flash", "cudnn"} & set(forms):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                CUDA_FORMS[form](*inputs, 1.0).sum().backward()
            except RuntimeError:
                forms.remove(form)
    return forms


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_every_form_of_the_softmax_is_exact(name: str, dtype: torch.dtype):
    n, m, d, e = SIZES[name]
    inputs = maps(n, m, d, e, dtype)
    scale = [d**-0.5]
    assert_exact(softmax_attention, reference.softmax_attention, inputs, scale)
    for form in forms_of(SIZES[name], dtype):
        assert_exact(CUDA_FORMS[form], reference.softmax_attention, inputs, scale)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_weights_that_underflow(dtype: torch.dtype):
    """The unscaled Gaussian of 512 channels: nearly all weights of a row are 0."""
    x = maps(1024, 1024, 512, 512, dtype)
    for form in forms_of((1024, 1024, 512, 512), dtype):
        assert_exact(CUDA_FORMS[form], reference.softmax_attention, [x[0], x[1], x[2]], [1.0])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_the_dot_product_is_exact(name: str, dtype: torch.dtype):
    assert_exact(dot_product, reference.dot_product, maps(*SIZES[name], dtype))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_the_concatenation_is_exact(name: str, dtype: torch.dtype):
    theta, phi, g = maps(*SIZES[name], dtype)
    inputs = [theta[..., 0].detach(), phi[..., 0].detach(), g.detach()]
    inputs = [x.requires_grad_() for x in inputs]
    assert_exact(concatenation, reference.concatenation, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_neither_the_dtype_nor_the_accuracy(dtype: torch.dtype):
    inputs = maps(1500, 1500, 320, 320, dtype)

    def in_autocast(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            with torch.autocast("cuda", dtype=dtype):
                return function(*arguments)

        return call

    scale = [320**-0.5]
    assert_exact(in_autocast(softmax_attention), reference.softmax_attention, inputs, scale)
    assert_exact(in_autocast(dot_product), reference.dot_product, inputs)
    columns = [inputs[0][..., 0], inputs[1][..., 0], inputs[2]]
    columns = [x.detach().requires_grad_() for x in columns]
    assert_exact(in_autocast(concatenation), reference.concatenation, columns)


def peak_bytes(function: Attention, n: int, head: int, dtype: torch.dtype) -> int:
    inputs = maps(n, n, head, head, dtype)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function(*inputs, head**-0.5).sum().backward()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("head", [256, 512, 1024])
def test_every_form_of_the_softmax_is_linear_in_memory(head: int, dtype: torch.dtype):
    """Twice the positions take about twice the bytes, which is much less than an affinity."""
    forms = forms_of((16384, 16384, head, head), dtype)
    for function in [softmax_attention, *(CUDA_FORMS[form] for form in forms)]:
        small, large = (peak_bytes(function, n, head, dtype) for n in (8192, 16384))
        assert large < 2.5 * small


def test_the_kernels_do_not_wait_for_the_device():
    """No call reads a number from the device, so that the host can queue further work."""
    theta, phi, g = maps(2000, 1500, 320, 320, torch.bfloat16)
    columns = [x[..., 0].detach().requires_grad_() for x in (theta, phi)]

    def step() -> None:
        y = softmax_attention(theta, phi, g, 0.1) + dot_product(theta, phi, g)
        (y + concatenation(*columns, g)).sum().backward()

    step()  # loads the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
