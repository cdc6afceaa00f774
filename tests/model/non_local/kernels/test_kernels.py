"""Every kernel equals its equation in float64: values, gradients, every size, form and dtype."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nlnet.model.non_local.kernels import softmax
from nlnet.model.non_local.kernels.compact_generalized import compact_generalized
from nlnet.model.non_local.kernels.concatenation import concatenation, sorted_sum
from nlnet.model.non_local.kernels.context import unary_context
from nlnet.model.non_local.kernels.dot_product import dot_product
from nlnet.model.non_local.kernels.double_attention import double_attention
from nlnet.model.non_local.kernels.softmax import softmax_attention
from nlnet.model.non_local.pairwise import Maps, unary_sum, whitened_sum
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
    "softmax_by_rows": (
        softmax.by_rows,
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
        lambda theta, phi, g, scale: whitened_sum(Maps(theta, phi, g, None), scale),
        reference.whitened_pairwise,
        lambda n, m, d, e: [(n, d), (m, d), (m, e)],
        (0.6,),
    ),
    "unary": (unary_context, reference.unary_context, lambda n, m, d, e: [(m,), (m, e)], ()),
    "disentangled": (
        lambda theta, phi, g, mask, scale: (
            whitened_sum(Maps(theta, phi, g, None), scale)
            + unary_sum(Maps(theta, phi, g, None), mask)
        ),
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
# One query and one key; few of both; more than a block of both, and not a multiple of it.
SIZES = [
    (1, 1, 3, 4),
    (5, 1, 2, 3),
    (1, 7, 3, 2),
    (20, 9, 8, 8),
    (211, 150, 6, 5),
    (130, 310, 8, 3),
]


def tokens(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, *shape, dtype=dtype).requires_grad_() for shape in shapes]


def outcome(kernel: Kernel, inputs: list[Tensor], further: tuple[Any, ...]) -> list[Tensor]:
    """The output and the gradient of each input under one fixed random cotangent."""
    y = kernel(*inputs, *further)
    cotangent = torch.randn(
        y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return [y.detach(), *torch.autograd.grad(y, inputs, cotangent.to(y.dtype))]


def errors(got: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """Norm of the difference divided by the norm of the wanted value, which counts as 1 or more."""
    pairs = [(x.double(), y.double()) for x, y in zip(got, wanted, strict=True)]
    return [float((x - y).norm() / y.norm().clamp(min=1.0)) for x, y in pairs]


@pytest.mark.usefixtures("small_blocks")
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


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size", [(3, 4, 2, 3), (40, 45, 1, 2)], ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_gradcheck(name: str, size: tuple[int, ...]):
    kernel, _, shapes, further = KERNELS[name]
    inputs = tokens(shapes(*size))
    assert torch.autograd.gradcheck(lambda *x: kernel(*x, *further), inputs, fast_mode=size[0] > 10)


def test_float32_is_exact_for_large_a_and_b_of_opposite_signs(small_blocks: None):
    """a_i + b_j is small and both are large: separate sums of a and of b would cancel."""
    a, b, g = tokens([(150,), (170,), (170, 3)])
    inputs = [(a + 4096).float(), (b - 4096).float(), g.float()]
    inputs = [x.detach().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    wanted = outcome(reference.concatenation, exact, ())
    assert max(errors(outcome(concatenation, inputs, ()), wanted)) < 1e-5


@pytest.mark.parametrize("values", ["ties", "constant", "all_active", "none_active"])
def test_concatenation_of_ties_and_constants(values: str, small_blocks: None):
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-2, 3, (2, 90), generator=generator).double() + 0.5
    b = torch.randint(-2, 3, (2, 75), generator=generator).double()
    if values == "constant":
        a, b = torch.full_like(a, 0.75), torch.full_like(b, -0.25)
    elif values == "all_active":
        a = a + 10
    elif values == "none_active":
        a = a - 10
    g = torch.randn(2, 75, 3, generator=generator, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (a, b, g)]
    wanted = outcome(reference.concatenation, inputs, ())
    assert max(errors(outcome(concatenation, inputs, ()), wanted)) < 1e-12


def test_numbers_of_keys_around_the_multiples_of_a_block(small_blocks: None):
    """All keys are active, so that the last block is used, too."""
    for keys in range(6, 27):
        a, b, g = tokens([(40,), (keys,), (keys, 2)])
        inputs = [x.detach().requires_grad_() for x in (a + 5, b, g)]
        wanted = outcome(reference.concatenation, inputs, ())
        assert max(errors(outcome(concatenation, inputs, ()), wanted)) < 1e-12


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"softmax_chunked"}))
def test_low_precision_has_the_error_of_a_few_roundings(name: str, dtype: torch.dtype):
    """Compared with float64 on the same rounded inputs."""
    kernel, oracle, shapes, further = KERNELS[name]
    rounded = [x.detach().to(dtype) for x in tokens(shapes(130, 170, 16, 16))]
    wanted = oracle(*[x.double() for x in rounded], *further)
    got = kernel(*rounded, *further)
    assert got.dtype == dtype
    assert errors([got], [wanted])[0] < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("sizes", [(8, 4096), (4096, 4096)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_dot_product_sums_in_float32(sizes: tuple[int, int], dtype: torch.dtype):
    """Sums of 4096 products of 64 overflow float16, and bfloat16 loses terms after 256."""
    n, m = sizes
    theta = torch.ones(1, n, 4, dtype=dtype)
    phi, g = (torch.full((1, m, 4), 8.0, dtype=dtype) for _ in range(2))
    assert torch.equal(dot_product(theta, phi, g), torch.full((1, n, 4), 256.0, dtype=dtype))


def test_large_logits_neither_overflow_nor_vanish(small_blocks: None):
    q, k, v = tokens([(70, 4), (90, 4), (90, 3)])
    inputs = [x.detach().float().requires_grad_() for x in (60 * q, 60 * k, v)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    got = softmax_attention(*inputs, 1.0)
    wanted = reference.softmax_attention(*exact, 1.0)
    assert errors([got.detach()], [wanted.detach()])[0] < 1e-4
    assert all(x.isfinite().all() for x in torch.autograd.grad(got.sum(), inputs))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the check itself
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_custom_operators_are_declared_correctly(dtype: torch.dtype):
    """torch's check of a custom operator: schema, fake tensors, autograd, ahead-of-time."""
    q, k, v = (x.to(dtype).detach().requires_grad_() for x in tokens([(40, 4), (50, 4), (50, 3)]))
    torch.library.opcheck(softmax.chunked_forward, (q, k, v))
    a, b = (x[..., 0].detach().requires_grad_() for x in (q, k))
    torch.library.opcheck(sorted_sum, (a, b, v))
