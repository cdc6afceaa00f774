"""The Triton kernels of wide heads under Triton's interpreter; test_split_head.py runs this file.

TRITON_INTERPRET=1 must be set before Triton is imported. The interpreter runs the kernels on a CPU.
"""

import os
import warnings

import pytest
import torch
from torch import Tensor

from nlnet.model.non_local.kernels import cuda_forms, softmax, split_head_check
from nlnet.model.non_local.kernels.cuda_forms import Problem, possible_forms
from nlnet.model.non_local.kernels.split_head import split_forward, split_head
from nlnet.model.non_local.kernels.split_head_check import split_head_works
from tests.model.non_local import reference

assert os.environ["TRITON_INTERPRET"] == "1"

CPU = torch.device("cpu")
# B, N, M, d, e: one position; the heads of a ResNet-50; several blocks, of which N and M are no
# multiples; d and e that are no multiples of a tile.
SIZES = [(2, 1, 1, 20, 24), (1, 65, 33, 512, 512), (2, 35, 40, 1024, 520)]


def tokens(size: tuple[int, ...], dtype: torch.dtype, factor: float = 1.0) -> list[Tensor]:
    batch, n, m, d, e = size
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, n, d), (batch, m, d), (batch, m, e)]
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return [x.to(dtype).requires_grad_() for x in (factor * q, k, v)]


def assert_exact(inputs: list[Tensor], scale: float, tolerance: float) -> None:
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y, wanted = split_head(*inputs, scale), reference.softmax_attention(*exact, scale)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    got = [y, *torch.autograd.grad(y, inputs, cotangent)]
    truth = [wanted, *torch.autograd.grad(wanted, exact, cotangent.double())]
    for a, b, x in zip(got, truth, [inputs[2], *inputs], strict=True):
        assert a.dtype == x.dtype
        error = (a.detach().double() - b.detach()).norm() / b.detach().norm().clamp(min=1.0)
        assert float(error) < tolerance


def test_float32_equals_the_equation():
    assert_exact(tokens((2, 66, 35, 40, 130), torch.float32), 40**-0.5, 1e-5)


def test_bfloat16_has_the_error_of_a_few_roundings():
    inputs = tokens((1, 70, 45, 320, 72), torch.bfloat16)
    assert_exact(inputs, 320**-0.5, 6 * torch.finfo(torch.bfloat16).eps)


@pytest.mark.slow
def test_weights_that_underflow():
    """As those of the unscaled Gaussian: most are below the smallest number of float32."""
    assert_exact(tokens((2, 66, 35, 320, 40), torch.float32), 20.0, 1e-4)


@pytest.mark.slow
def test_a_head_that_is_not_contiguous_and_a_gradient_that_is_expanded():
    q, k, v = tokens((2, 40, 24, 48, 20), torch.float32)
    inputs = [x.detach().mT.contiguous().mT.requires_grad_() for x in (q, k, v)]
    assert not inputs[0].is_contiguous()
    exact = [x.detach().double().requires_grad_() for x in inputs]
    got = torch.autograd.grad(split_head(*inputs, 0.2).sum(), inputs)
    wanted = torch.autograd.grad(reference.softmax_attention(*exact, 0.2).sum(), exact)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a.double(), b, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the check itself
def test_the_operator_is_declared_correctly():
    torch.library.opcheck(split_forward, (*tokens((1, 9, 7, 20, 18), torch.float32), 0.3))


@pytest.mark.slow
def test_a_compiled_function_has_one_graph():
    inputs = tokens((1, 20, 17, 24, 18), torch.float32)
    compiled = torch.compile(split_head, fullgraph=True, backend="aot_eager")
    wanted = split_head(*inputs, 0.3)
    got = compiled(*inputs, 0.3)
    assert torch.equal(got, wanted)
    gradients = torch.autograd.grad(got.sum(), inputs)
    for a, b in zip(gradients, torch.autograd.grad(wanted.sum(), inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_autocast_does_not_change_the_gradients():
    inputs = tokens((1, 20, 17, 24, 18), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.float16):
        y = split_head(*inputs, 0.3)
        gradients = torch.autograd.grad(y.sum(), inputs)
    wanted = torch.autograd.grad(split_head(*inputs, 0.3).sum(), inputs)
    for a, b in zip(gradients, wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_the_check_accepts_a_right_kernel_and_keeps_the_random_state():
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert split_head_works(CPU, torch.bfloat16, 40, 24)
    assert torch.equal(torch.get_rng_state(), state)


def wrong(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return 1.2 * split_head(q, k, v, scale)


def fails(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    from triton.runtime.errors import OutOfResources

    raise OutOfResources(263168, 232448, "shared memory")


@pytest.mark.slow
@pytest.mark.parametrize("kernel, reason", [(wrong, "error is 2.0e-01"), (fails, "263168")])
def test_the_check_refuses_a_kernel_in_one_line(
    kernel: object, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(split_head_check, "split_head", kernel)
    split_head_works.cache_clear()
    with pytest.warns(UserWarning, match=reason) as caught:
        assert not split_head_works(CPU, torch.float32, 24, 16)
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        assert not split_head_works(CPU, torch.float32, 24, 16)  # it is said once
    split_head_works.cache_clear()


@pytest.fixture
def gpu_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule of a CUDA device for few positions, on a CPU."""
    monkeypatch.setattr(cuda_forms, "_device_name", lambda index: "A")
    monkeypatch.setattr(cuda_forms, "_device", lambda index: CPU)
    monkeypatch.setattr(cuda_forms, "FEW_POSITIONS", 16)
    monkeypatch.setattr(cuda_forms, "KEPT", 0)
    monkeypatch.setattr(cuda_forms, "FEW", 0)


@pytest.mark.slow
def test_the_rule_uses_it_for_wide_heads_of_many_positions(
    gpu_rule: None, monkeypatch: pytest.MonkeyPatch
):
    """The whole path of a CUDA device, on a CPU: the rule, the check and the kernel."""
    q, k, v = tokens((1, 40, 33, 320, 24), torch.bfloat16)
    assert cuda_forms.cuda_form(q, k, v) == "split"
    y = softmax.CUDA_FORMS["split"](q, k, v, 0.1).detach()
    wanted = reference.softmax_attention(*(x.detach().double() for x in (q, k, v)), 0.1)
    assert float((y - wanted).norm() / wanted.norm()) < 2e-2
    assert cuda_forms.cuda_form(q[..., :200], k[..., :200], v) == "fused"
    monkeypatch.setattr(cuda_forms, "split_head_works", lambda *_: False)
    assert cuda_forms.cuda_form(q, k, v) == "fused"
    problem = Problem("float32", 512, 512, 1000, 1000)
    assert possible_forms(problem)[0] != "split" and "split" in possible_forms(problem)


@pytest.mark.slow
def test_the_check_runs_while_a_function_is_compiled(gpu_rule: None):
    """The first call of a network on a GPU may be a compiled one, in autocast."""
    split_head_works.cache_clear()
    chosen: list[str] = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        form = cuda_forms.cuda_form(q, k, v)
        chosen.append(form)
        return softmax.CUDA_FORMS[form](q, k, v, 0.1)

    inputs = tokens((1, 20, 17, 264, 18), torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = torch.compile(attend, fullgraph=True, backend="aot_eager")(*inputs)
        wanted = split_head(*inputs, 0.1)
    assert chosen == ["split"]
    assert split_head_works.cache_info().currsize == 1
    gradients = torch.autograd.grad(got.sum(), inputs)
    for a, b in zip(gradients, torch.autograd.grad(wanted.sum(), inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_is_exact(size: tuple[int, ...]):
    assert_exact(tokens(size, torch.float32), size[3] ** -0.5, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_has_the_error_of_a_few_roundings(dtype: torch.dtype):
    inputs = tokens((1, 70, 33, 320, 300), dtype)
    assert_exact(inputs, 320**-0.5, 6 * torch.finfo(dtype).eps)
