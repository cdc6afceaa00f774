"""bench=forms: times of every form of the softmax on a GPU, and the table that chooses by them.

A form is timed forward and backward, for a batch of `BATCH` clips, after its output and the
gradient of q were compared with float64. A form that does not support a shape, or is wrong, gets no
row.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isnan

import torch
from torch import Tensor

from nlnet.bench.operations.shapes import SHAPES, Shape
from nlnet.bench.report import Report
from nlnet.bench.timing import interleaved
from nlnet.cli.sweep import markdown_table
from nlnet.config import BenchmarkConfig
from nlnet.distributed.build import build_device
from nlnet.errors import UsageError
from nlnet.files import write_text
from nlnet.model.non_local.kernels.cuda_forms import (
    TABLE,
    FormTime,
    Problem,
    chosen_form,
    possible_forms,
    read_table,
    write_table,
)
from nlnet.model.non_local.kernels.softmax import CUDA_FORMS, direct
from nlnet.model.non_local.kernels.split_head_check import LARGEST_ERROR, split_head_works
from nlnet.runs.logger import progress_bar

BATCH = 8  # clips
COMPARED = 256  # queries that are compared with float64
REPEATS = 20
DTYPES = ("bfloat16", "float16", "float32")
LONG = [  # 128 frames
    Shape(stage, channels, 32, side, pooled)
    for stage, channels, side in (("res3", 512, 28), ("res4", 1024, 14))
    for pooled in (True, False)
]
Timer = Callable[[Mapping[str, Callable[[], object]]], Mapping[str, float]]


def measure_forms(run: BenchmarkConfig) -> Report:
    """Time every form at the sizes of res3 and res4, and write the table that a softmax reads.

    Raises UsageError if the device is no GPU.
    """
    device = build_device(run.dist)
    if device.type != "cuda":
        raise UsageError(f"bench=forms needs a CUDA device, and dist.device is {device.type}")
    rows = time_problems(problems(quick=run.quick), device, torch.cuda.get_device_name(device))
    write_text(TABLE, write_table(merged(read_table(TABLE.read_text()), rows)))
    return forms_report(rows)


def problems(*, quick: bool) -> list[Problem]:
    """The embedded Gaussian and the Gaussian of each shape, in each dtype."""
    shapes = [shape for shape in SHAPES if shape.frames == 4] if quick else [*SHAPES, *LONG]
    found = {
        Problem(dtype, d, shape.inner, shape.queries, shape.keys): None
        for dtype in DTYPES[: 1 if quick else None]
        for shape in shapes
        for d in (shape.inner, shape.channels)
    }
    return list(found)


def time_problems(
    wanted: Sequence[Problem], device: torch.device, name: str, timer: Timer | None = None
) -> list[FormTime]:
    """The rows of all forms of the problems on a device."""
    timer = timer or (lambda calls: interleaved(calls, repeats=REPEATS, warmup=3))
    return [
        FormTime(
            name,
            problem.dtype,
            problem.d,
            problem.e,
            problem.n,
            problem.m,
            form,
            round(1000 * seconds, 4),
            torch.__version__,
        )
        for problem in progress_bar(wanted, "forms")
        for form, seconds in timer(right_steps(problem, device)).items()
    ]


def right_steps(problem: Problem, device: torch.device) -> dict[str, Callable[[], object]]:
    """A step of each form that supports a problem and is right: forward and backward."""
    torch.manual_seed(0)
    dtype = getattr(torch, problem.dtype)
    sizes = [(problem.n, problem.d), (problem.m, problem.d), (problem.m, problem.e)]
    inputs = [torch.randn(BATCH, *s, device=device, dtype=dtype).requires_grad_() for s in sizes]
    cotangent = torch.randn(BATCH, problem.n, problem.e, device=device, dtype=dtype)

    def step_of(form: str) -> Callable[[], tuple[Tensor, ...]]:
        def step() -> tuple[Tensor, ...]:
            y = CUDA_FORMS[form](inputs[0], inputs[1], inputs[2], problem.d**-0.5)
            return y.detach(), *torch.autograd.grad(y, inputs, cotangent)

        return step

    steps: dict[str, Callable[[], object]] = {}
    truth = _first_queries(inputs, cotangent, problem.d**-0.5)
    for form in possible_forms(problem):
        if form == "split" and not split_head_works(device, dtype, problem.d, problem.e):
            continue
        step = step_of(form)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's reasons why a kernel is absent
                outcome = step()
        except RuntimeError:  # no kernel for this shape, or too little memory
            continue
        if _error(outcome[:2], truth) < LARGEST_ERROR[dtype]:
            steps[form] = step
    return steps


def _first_queries(inputs: Sequence[Tensor], cotangent: Tensor, scale: float) -> list[Tensor]:
    """Output and gradient of the first queries of the first clip, in float64."""
    q, k, v = (x[:1].detach().double() for x in inputs)
    q = q[:, :COMPARED].requires_grad_()
    y = direct(q, k, v, scale)
    return [y.detach(), *torch.autograd.grad(y, q, cotangent[:1, :COMPARED].double())]


def _error(outcome: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """The larger relative error of both; infinite for a number that is not finite."""
    errors = []
    for got, wanted in zip(outcome, truth, strict=True):
        rows = got[:1, :COMPARED].double()
        errors.append(float((rows - wanted).norm() / wanted.norm()))
    return max(inf if isnan(error) else error for error in errors)


def merged(old: Iterable[FormTime], new: Sequence[FormTime]) -> list[FormTime]:
    """Old rows without those of a problem and device that was measured again, and the new ones."""
    replaced = {_problem(row) for row in new}
    rows = [*(row for row in old if _problem(row) not in replaced), *new]
    return sorted(rows, key=lambda row: (*_problem(row), row.milliseconds))


def _problem(row: FormTime) -> tuple[str, str, int, int, int, int]:
    return row.device, row.dtype, row.d, row.e, row.n, row.m


def forms_report(rows: Sequence[FormTime]) -> Report:
    """The times of all forms, and the form that the table and the rule choose."""
    cells = []
    for device, dtype, d, e, n, m in dict.fromkeys(map(_problem, rows)):
        problem = Problem(dtype, d, e, n, m)
        times = {
            row.form: row.milliseconds
            for row in rows
            if _problem(row) == (device, dtype, d, e, n, m)
        }
        possible = possible_forms(problem)
        values = [f"{times[form]:.3f}" if form in times else "-" for form in CUDA_FORMS]
        chosen = chosen_form(problem, possible, device, rows)
        cells.append([f"{dtype}, d {d}, e {e}, N {n:,}, M {m:,}", *values, chosen, possible[0]])
    table = markdown_table(["problem", *CUDA_FORMS, "fastest", "rule"], cells)
    title = f"## Forms of the softmax: milliseconds, forward and backward, {BATCH} clips\n\n"
    return Report(title + table, {"forms": [vars(row) for row in rows]})
