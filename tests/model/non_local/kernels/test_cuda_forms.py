"""The forms of a CUDA device: which one is chosen, and those that also run on a CPU."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode

from nlnet.model.non_local.kernels import concatenation as sorting
from nlnet.model.non_local.kernels import cuda_forms, softmax
from nlnet.model.non_local.kernels.concatenation import concatenation
from nlnet.model.non_local.kernels.cuda_forms import (
    FormTime,
    Problem,
    possible_forms,
    read_table,
    write_table,
)
from nlnet.model.non_local.kernels.dot_product import dot_product
from nlnet.model.non_local.kernels.kept_affinity import kept_affinity, kept_softmax
from nlnet.model.non_local.kernels.products import mean_product, wide_product
from tests.model.non_local import reference

RES3 = Problem("bfloat16", 256, 256, 6272, 1568)
RES4 = Problem("bfloat16", 512, 512, 784, 196)
LONG_RES4 = Problem("bfloat16", 512, 512, 6272, 1568)
WIDE_GAUSSIAN = Problem("float16", 1024, 512, 3136, 3136)


def chosen_form(problem: Problem, device: str, table: list[FormTime]) -> str:
    return cuda_forms.chosen_form(problem, possible_forms(problem), device, table)


def tokens(n: int, m: int, d: int, e: int) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, n, d), (2, m, d), (2, m, e)]
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def outcome(function: object, inputs: list[Tensor], *further: float) -> list[Tensor]:
    assert callable(function)
    y = function(*inputs, *further)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, inputs, cotangent)]


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted).norm() / wanted.norm())


# The choice


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_affinity_is_kept_where_it_is_no_larger_than_the_tokens(dtype: str):
    assert possible_forms(replace(RES4, dtype=dtype))[0] == "kept"
    assert possible_forms(Problem(dtype, 4, 4, 64, 64))[0] == "kept"
    assert "kept" not in possible_forms(replace(LONG_RES4, dtype=dtype))
    edge = Problem(dtype, 512, 512, 2048, 2048)  # N M = 2 (N + M) d
    assert "kept" in possible_forms(edge)
    assert "kept" not in possible_forms(replace(edge, n=2049))


def test_every_possible_form_is_implemented():
    problems = [
        Problem(dtype, d, e, n, m)
        for dtype in ("float16", "bfloat16", "float32", "float64")
        for d, e in ((64, 64), (256, 256), (512, 512), (1024, 512), (320, 200))
        for n, m in ((1, 1), (784, 196), (12544, 3136))
    ]
    for problem in problems:
        assert set(possible_forms(problem)) <= set(softmax.CUDA_FORMS)


def test_torch_chooses_among_its_kernels_up_to_256_channels():
    assert possible_forms(RES3) == ["fused", "efficient", "flash", "cudnn"]
    assert {"flash", "cudnn"}.isdisjoint(possible_forms(WIDE_GAUSSIAN))
    assert {"flash", "cudnn"}.isdisjoint(possible_forms(replace(RES3, dtype="float32")))


def test_float64_is_chunked():
    assert possible_forms(replace(RES4, dtype="float64")) == ["chunked"]


def rows(problem: Problem, **milliseconds: float) -> list[FormTime]:
    shape = (problem.dtype, problem.d, problem.e, problem.n, problem.m)
    return [FormTime("A", *shape, form, time, "2.14") for form, time in milliseconds.items()]


def test_the_fastest_measured_form_of_the_nearest_shape_is_used():
    table = rows(RES3, fused=2.0, cudnn=1.0, efficient=3.0)
    table += rows(replace(RES3, n=25088), fused=2.0, cudnn=4.0, efficient=3.0)
    assert chosen_form(RES3, "A", table) == "cudnn"
    assert chosen_form(replace(RES3, n=6000), "A", table) == "cudnn"
    assert chosen_form(replace(RES3, n=20000), "A", table) == "fused"


def test_the_rule_decides_where_nothing_near_was_measured():
    table = rows(RES3, fused=2.0, cudnn=1.0)
    for other in (
        replace(RES3, dtype="float16"),
        replace(RES3, d=128, e=128),
        replace(RES3, n=6272 * 4 + 1),
    ):
        assert chosen_form(other, "A", table) == possible_forms(other)[0]
    assert chosen_form(RES3, "B", table) == "fused"


def test_a_measured_form_that_would_need_quadratic_memory_is_not_used():
    edge = Problem("bfloat16", 512, 512, 2048, 2048)
    table = rows(edge, kept=1.0, efficient=2.0, fused=3.0)
    assert chosen_form(edge, "A", table) == "kept"
    assert chosen_form(replace(edge, n=4096), "A", table) == "efficient"


def test_a_table_survives_its_file_and_the_shipped_one_is_readable():
    table = rows(RES3, fused=2.0, cudnn=1.25) + rows(WIDE_GAUSSIAN, efficient=0.5)
    assert read_table(write_table(table)) == table
    shipped = read_table(cuda_forms.TABLE.read_text())
    assert write_table(shipped) == cuda_forms.TABLE.read_text()
    for row in shipped:
        assert row.form in possible_forms(Problem(row.dtype, row.d, row.e, row.n, row.m))


@pytest.mark.parametrize("size, cudnn", [(256, True), (264, False)])
def test_the_quadratic_form_of_torch_is_never_allowed(
    size: int, cudnn: bool, monkeypatch: pytest.MonkeyPatch
):
    allowed: list[set[str]] = []

    def attention(q: Tensor, *_: Tensor, scale: float) -> Tensor:
        flags = torch.backends.cuda
        states = {
            "math": flags.math_sdp_enabled(),
            "flash": flags.flash_sdp_enabled(),
            "efficient": flags.mem_efficient_sdp_enabled(),
            "cudnn": flags.cudnn_sdp_enabled(),
        }
        allowed.append({name for name, enabled in states.items() if enabled})
        return q

    monkeypatch.setattr(softmax.F, "scaled_dot_product_attention", attention)
    q = torch.zeros(1, 4, size)
    softmax.fused(q, q, q, 1.0)
    assert allowed.pop() == {"flash", "efficient"} | ({"cudnn"} if cudnn else set())
    for form, backend in (("flash", "flash"), ("efficient", "efficient")):
        softmax.CUDA_FORMS[form](q, q, q, 1.0)
        assert allowed.pop() == {backend}


def test_torch_has_the_kernels_by_these_names():
    names = {"FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"}
    assert names <= set(SDPBackend.__members__)


# The functions on tensors that say that they are on a CUDA device, and have no numbers


class _Operators(TorchDispatchMode):
    """The names of nlnet's operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func).startswith("nlnet."):
            self.names.append(str(func).split(".")[1])
        return func(*args, **(kwargs or {}))


@pytest.fixture
def cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without measured forms, where Triton works."""
    monkeypatch.setattr(cuda_forms, "_device_name", lambda index: "A")
    monkeypatch.setattr(cuda_forms, "_shipped_table", lambda: ())
    monkeypatch.setattr(cuda_forms, "split_head_works", lambda *_: True)


def on_cuda(n: int, m: int, d: int, e: int, dtype: torch.dtype) -> list[Tensor]:
    shapes = [(2, n, d), (2, m, d), (2, m, e)]
    return [torch.empty(shape, device="cuda", dtype=dtype) for shape in shapes]


@pytest.mark.usefixtures("cuda_device")
@pytest.mark.parametrize(
    "size, form",
    [
        ((784, 196, 512, 512), "kept_softmax"),
        ((3136, 784, 512, 512), "kept_softmax"),
        ((6272, 1568, 512, 512), "split_softmax"),
        ((12544, 3136, 512, 256), "split_softmax"),
    ],
    ids=str,
)
def test_the_form_of_a_softmax_on_a_cuda_device(size: tuple[int, ...], form: str):
    with FakeTensorMode(), _Operators() as called:
        q, k, v = on_cuda(*size, torch.bfloat16)
        y = softmax.softmax_attention(q, k, v, 1.0)
    assert called.names == [form]
    assert (y.shape, y.dtype, y.device.type) == ((2, size[0], size[3]), torch.bfloat16, "cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_the_linear_functions_of_a_cuda_device(dtype: torch.dtype):
    """Tensor cores add in float32; the terms of few positions are kept. No number is read."""
    with FakeTensorMode(), _Operators() as called:
        theta, phi, g = on_cuda(6272, 1568, 512, 512, dtype)
        assert wide_product(theta, phi.mT).dtype == torch.float32
        y = dot_product(theta, phi, g)
        assert called.names == ([] if dtype == torch.float32 else ["mean_product"])
        z = concatenation(theta[..., 0], phi[..., 0], g)
        assert called.names[-1] == "sorted_sum"
        called.names.clear()
        small = concatenation(theta[:, :784, 0], phi[:, :196, 0], g[:, :196])
        assert called.names == []
        assert {x.dtype for x in (y, z, small)} == {dtype}
        terms, heights, _ = sorting._sorted_blocks(phi[..., 0].float(), g.float())
        blocks, factors = sorting._active_blocks(heights, theta[..., 0].float(), 1568)
        slopes = sorting._slopes_times(
            g.float().repeat(1, 4, 1).split(sorting.CUDA_CHUNK, dim=1), terms, blocks, factors
        )
        assert slopes.shape == (2, 6272)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_the_linear_functions_as_they_are(dtype: torch.dtype):
    theta, phi, g = (x.detach().to(dtype).requires_grad_() for x in tokens(90, 70, 16, 16))
    inputs = [theta[..., 0], phi[..., 0], g]
    for function, arguments in ((dot_product, [theta, phi, g]), (concatenation, inputs)):
        wanted = function(*arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = function(*arguments)
        assert got.dtype == dtype
        assert torch.equal(got, wanted)
        gradients = torch.autograd.grad(got.sum(), arguments)
        for a, b in zip(gradients, torch.autograd.grad(wanted.sum(), arguments), strict=True):
            assert a.dtype == dtype
            assert torch.equal(a, b)


# The form that keeps the affinity, and the products


@pytest.mark.parametrize("size", [(1, 1, 3, 4), (5, 1, 2, 3), (20, 9, 8, 8), (33, 70, 6, 5)])
def test_the_kept_affinity_equals_the_equation(size: tuple[int, ...]):
    inputs = tokens(*size)
    wanted = outcome(reference.softmax_attention, inputs, 0.6)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        cast = [x.detach().to(dtype).requires_grad_() for x in inputs]
        got = outcome(kept_affinity, cast, 0.6)
        for a, b in zip(got, wanted, strict=True):
            assert a.dtype == dtype
            assert float((a - b).norm() / b.norm().clamp(min=1.0)) < tolerance


@pytest.mark.parametrize("scale", [16**-0.5, 1.0, 8.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_kept_affinity_has_the_error_of_a_few_roundings(dtype: torch.dtype, scale: float):
    """With `scale` 8 nearly all weights underflow, as those of an unscaled Gaussian."""
    rounded = [x.detach().to(dtype).requires_grad_() for x in tokens(70, 90, 16, 24)]
    exact = [x.detach().double().requires_grad_() for x in rounded]
    got = outcome(kept_affinity, rounded, scale)
    wanted = outcome(reference.softmax_attention, exact, scale)
    for a, b in zip(got, wanted, strict=True):
        assert a.isfinite().all()
        assert relative(a, b) < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_the_mean_product_sums_in_float32(dtype: torch.dtype):
    """4096 products of 64 overflow float16, and bfloat16 loses terms after 256."""
    a, b = (torch.full((2, 4096, 3), 8.0, dtype=dtype).requires_grad_() for _ in range(2))
    y = mean_product(a, b)
    assert torch.equal(y, torch.full((2, 3, 3), 64.0, dtype=y.dtype))
    da, db = torch.autograd.grad(y.sum(), [a, b])
    assert torch.equal(da, torch.full_like(a, 3 * 8 / 4096))
    assert torch.equal(db, da)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the check itself
def test_the_operators_are_declared_correctly():
    q, k, v = (x.float().detach().requires_grad_() for x in tokens(12, 9, 4, 3))
    torch.library.opcheck(kept_softmax, (q, k, v, 0.5))
    torch.library.opcheck(mean_product, (k, v))


def test_a_compiled_function_has_one_graph(monkeypatch: pytest.MonkeyPatch):
    """The choice is a constant of the graph, and the operators do not break it."""
    monkeypatch.setattr(cuda_forms, "_device_name", lambda index: "A")
    monkeypatch.setattr(cuda_forms, "_shipped_table", lambda: ())
    inputs = [x.detach().float().requires_grad_() for x in tokens(12, 9, 4, 3)]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax.CUDA_FORMS[cuda_forms.cuda_form(q, k, v)](q, k, v, 0.5)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    wanted = outcome(attend, inputs)
    for a, b in zip(outcome(compiled, inputs), wanted, strict=True):
        assert torch.allclose(a, b)
    torch.compiler.reset()
