"""The kernels on a CUDA device: exact, with linear memory for the head sizes of a ResNet-50."""

import pytest
import torch

from nlnet.model.non_local.kernels.concatenation import concatenation
from nlnet.model.non_local.kernels.dot_product import dot_product
from nlnet.model.non_local.kernels.softmax import softmax_attention
from tests.model.non_local import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.double() - wanted).norm() / wanted.norm())


def maps(n: int, m: int, d: int, e: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(2, n, d), (2, m, d), (2, m, e)]
    return [torch.randn(s, device="cuda").to(dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("head", [64, 256, 512, 1024])
def test_softmax_is_exact(head: int, dtype: torch.dtype):
    inputs = maps(784, 196, head, min(head, 512), dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y = softmax_attention(*inputs, head**-0.5)
    wanted = reference.softmax_attention(*exact, head**-0.5)
    assert relative(y.detach(), wanted.detach()) < TOLERANCE[dtype]
    cotangent = torch.randn_like(wanted)
    got = torch.autograd.grad(y, inputs, cotangent.to(dtype))
    for a, b in zip(got, torch.autograd.grad(wanted, exact, cotangent), strict=True):
        assert relative(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_linear_functions_are_exact(dtype: torch.dtype):
    theta, phi, g = (x.detach() for x in maps(3000, 1500, 64, 64, dtype))
    wanted = reference.dot_product(theta.double(), phi.double(), g.double())
    assert relative(dot_product(theta, phi, g), wanted) < TOLERANCE[dtype]
    a, b = theta[..., 0], phi[..., 0]
    wanted = reference.concatenation(a.double(), b.double(), g.double())
    assert relative(concatenation(a, b, g), wanted) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("head", [256, 512, 1024])
def test_softmax_stays_linear_in_memory(head: int, dtype: torch.dtype):
    """Twice the positions take about twice the bytes, which is much less than an affinity."""
    used = []
    for n in (8192, 16384):
        inputs = maps(n, n, head, head, dtype)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        softmax_attention(*inputs, head**-0.5).sum().backward()
        used.append(torch.cuda.max_memory_allocated() - before)
        del inputs
    assert used[1] < 2.5 * used[0]
