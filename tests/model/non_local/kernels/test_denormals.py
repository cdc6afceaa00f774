"""A softmax whose weights underflow: no denormal number anywhere, and the exact result."""

from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nlnet.model.non_local.kernels import small_weights, softmax
from nlnet.model.non_local.kernels.row_column import row_column_softmax
from tests.model.non_local import reference

TINY = torch.finfo(torch.float32).tiny


class Denormals(TorchDispatchMode):
    """Counts the denormal numbers in the results of all operations inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        written = [
            value
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        is_view = any(value.alias_info is not None for value in func._schema.returns)
        computed = [] if is_view or "empty" in func._schema.name else [result]
        for x in tree_leaves((written, kwargs.get("out"), computed)):
            if isinstance(x, Tensor) and x.is_floating_point():
                self.count += int(((x != 0) & (x.abs() < TINY)).sum())
        return result


@pytest.fixture
def gaussian() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v of an unscaled Gaussian as in res3, and a gradient of the size that training has."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 300, 512), torch.randn(2, 150, 512), torch.randn(2, 150, 32)
    return q, k, v, 1e-6 * torch.randn(2, 300, 32)


def chunked_step(q: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> list[Tensor]:
    """Forward and backward pass; the functions behind the operators, whose parts are then seen."""
    exponent = q / log(2)
    y, log_sums = softmax.chunked_forward._init_fn(exponent, k, v)
    gradients = softmax._chunked_backward._init_fn(dy, exponent, k, v, y, log_sums)
    return [y, gradients[0] / log(2), *gradients[1:]]


def direct_step(q: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> list[Tensor]:
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = softmax.direct(*inputs, 1.0)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy)]


def naive_step(q: Tensor, k: Tensor, v: Tensor, dy: Tensor) -> list[Tensor]:
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = reference.softmax_attention(*inputs, 1.0)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(y.dtype))]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("step", [chunked_step, direct_step])
def test_weights_that_underflow_make_no_denormals(
    step: Callable[..., list[Tensor]], gaussian: tuple[Tensor, ...]
):
    with Denormals() as found:
        results = step(*gaussian)
    assert found.count == 0
    with Denormals() as naive:
        naive_step(*gaussian)
    assert naive.count > 1000
    for result, exact in zip(results, naive_step(*(x.double() for x in gaussian)), strict=True):
        assert (result - exact).norm() < 1e-4 * exact.norm()


def test_weights_of_a_row_and_a_column_that_underflow_make_no_denormals(
    gaussian: tuple[Tensor, ...],
):
    q, _, _, dy = gaussian
    inputs = [q.requires_grad_(), torch.randn(q.shape).requires_grad_(), dy.clone()]
    with Denormals() as found:
        y = row_column_softmax(*inputs, 1.0, 20)
        torch.autograd.grad(y, inputs[:2], dy)
    assert found.count == 0


@pytest.mark.parametrize("spread", [1.0, 60.0], ids=["no small weight", "small weights"])
def test_cutting_logits_keeps_the_other_weights(spread: float):
    torch.manual_seed(0)
    logits = spread * torch.randn(2, 50, 70)
    weights = torch.softmax(logits, dim=-1)
    cut = logits.clone()
    small_weights.cut_logits(cut)
    found = torch.softmax(cut, dim=-1)
    relative = (logits - logits.amax(dim=-1, keepdim=True)).double()
    small = relative <= small_weights.least(torch.float32) * log(2)
    assert small.any() == (spread > 1)
    assert (found[small] == 0).all()
    torch.testing.assert_close(found[~small], weights[~small], rtol=1e-6, atol=0)


@pytest.mark.parametrize("step", [chunked_step, direct_step])
def test_a_nan_is_not_cut(step: Callable[..., list[Tensor]], gaussian: tuple[Tensor, ...]):
    """A run has to see that its loss is not finite."""
    q, k, v, dy = gaussian
    q[1, 7, 3] = torch.nan
    y, dq, dk, _ = step(q, k, v, dy)
    assert y[1, 7].isnan().all()
    assert y[0].isfinite().all()
    assert dq[1, 7].isnan().all()
    assert dk[1].isnan().any()
