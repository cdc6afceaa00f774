"""Every kernel against its equation in float64: values, gradients, every size, form and dtype."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nlnet.model.non_local import softmax
from nlnet.model.non_local.compact_generalized import compact_generalized
from nlnet.model.non_local.concatenation import concatenation
from nlnet.model.non_local.disentangled import disentangled, unary_context, whitened_pairwise
from nlnet.model.non_local.dot_product import dot_product
from nlnet.model.non_local.double_attention import double_attention
from nlnet.model.non_local.softmax import softmax_attention
from tests.model.non_local import reference

Kernel = Callable[..., Tensor]

# name -> (kernel, oracle, shapes from N, M, d, e, further arguments)
KERNELS: dict[str, tuple[Kernel, Kernel, Callable[..., list[tuple[int, ...]]], tuple[Any, ...]]] = {
    "softmax": (
        softmax_attention,
        reference.softmax_attention,
        lambda n, m, d, e: [(n, d), (m, d), (m, e)],
        (0.6,),
    ),
    "softmax_direct": (
        softmax.direct,
        reference.softmax_attention,
        lambda n, m, d, e: [(n, d), (m, d), (m, e)],
        (0.6,),
    ),
    "softmax_chunked": (
        softmax.chunked,
        reference.softmax_attention,
        lambda n, m, d, e: [(n, d), (m, d), (m, e)],
        (0.6,),
    ),
    "softmax_fused": (
        softmax.fused,
        reference.softmax_attention,
        lambda n, m, d, e: [(n, d), (m, d), (m, e)],
        (0.6,),
    ),
    "dot_product": (
        dot_product,
        reference.dot_product,
        lambda n, m, d, e: [(n, d), (m, d), (m, e)],
        (),
    ),
    "concatenation": (
        concatenation,
        reference.concatenation,
        lambda n, m, d, e: [(n,), (m,), (m, e)],
        (),
    ),
    "whitened": (
        whitened_pairwise,
        reference.whitened_pairwise,
        lambda n, m, d, e: [(n, d), (m, d), (m, e)],
        (0.6,),
    ),
    "unary": (unary_context, reference.unary_context, lambda n, m, d, e: [(m,), (m, e)], ()),
    "disentangled": (
        disentangled,
        reference.disentangled,
        lambda n, m, d, e: [(n, d), (m, d), (m, e), (m,)],
        (0.6,),
    ),
    "double_attention": (
        double_attention,
        reference.double_attention,
        lambda n, m, d, e: [(m, e), (m, d), (n, d)],
        (),
    ),
    "compact_generalized": (
        compact_generalized,
        reference.compact_generalized,
        lambda n, m, d, e: [(n, 2 * d)] * 3,
        (2,),
    ),
}
# One query and one key; few of both; enough that no kernel keeps an affinity; uneven blocks.
SIZES = [(1, 1, 3, 4), (5, 1, 2, 3), (1, 7, 3, 2), (20, 9, 8, 8), (211, 150, 6, 5), (130, 310, 8, 3)]


def tokens(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, *shape, dtype=dtype).requires_grad_() for shape in shapes]


def outcome(kernel: Kernel, inputs: list[Tensor], further: tuple[Any, ...]) -> list[Tensor]:
    """The output and the gradient of each input under one fixed random cotangent."""
    y = kernel(*inputs, *further)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [y.detach(), *torch.autograd.grad(y, inputs, cotangent.to(y.dtype))]


def errors(got: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """Norm of the difference over the norm of what was wanted, or over 1 where that is less."""
    pairs = [(x.double(), y.double()) for x, y in zip(got, wanted, strict=True)]
    return [float((x - y).norm() / y.norm().clamp(min=1.0)) for x, y in pairs]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred rows are several chunks."""
    monkeypatch.setattr(softmax, "CHUNK", 4096)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_float32_is_exact_to_1e_5(name: str, size: tuple[int, ...]):
    kernel, oracle, shapes, further = KERNELS[name]
    inputs = tokens(shapes(*size))
    wanted = outcome(oracle, inputs, further)
    singles = [x.detach().float().requires_grad_() for x in inputs]
    got = outcome(kernel, singles, further)
    assert max(errors(got, wanted)) < 1e-5
    assert got[0].dtype == torch.float32


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", [(3, 4, 2, 3), (40, 45, 1, 2)], ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_gradcheck(name: str, size: tuple[int, ...]):
    kernel, _, shapes, further = KERNELS[name]
    inputs = tokens(shapes(*size))
    assert torch.autograd.gradcheck(lambda *x: kernel(*x, *further), inputs, fast_mode=size[0] > 10)
