"""bench=forms on a CPU: the forms that run there, and a table from injected times."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nlnet.bench.operations import forms
from nlnet.bench.operations.forms import (
    forms_report,
    measure_forms,
    merged,
    problems,
    right_steps,
    time_problems,
)
from nlnet.bench.timing import interleaved
from nlnet.config import BenchmarkConfig
from nlnet.errors import UsageError
from nlnet.model.non_local.kernels.cuda_forms import (
    FormTime,
    Problem,
    chosen_form,
    possible_forms,
    read_table,
    write_table,
)
from nlnet.model.non_local.kernels.softmax import CUDA_FORMS, fused
from tests.bench.conftest import ComposeBenchmark

CPU = torch.device("cpu")
SMALL = Problem("bfloat16", 16, 8, 40, 24)
SECONDS = {"kept": 3e-3, "fused": 1e-3, "efficient": 2e-3, "flash": 4e-3, "split": 5e-4}


def injected(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    return {form: SECONDS[form] for form in calls}


def test_the_forms_of_a_cpu_are_timed_and_the_others_left_out():
    """torch has no memory-efficient kernel and no cuDNN on a CPU."""
    rows = time_problems([SMALL], CPU, "A", partial(interleaved, repeats=2))
    assert {row.form for row in rows} == {"kept", "fused", "flash"}
    assert all(row.milliseconds > 0 and row.device == "A" for row in rows)
    assert all((row.d, row.e, row.n, row.m) == (16, 8, 40, 24) for row in rows)


def test_a_form_that_is_wrong_gets_no_row(monkeypatch: pytest.MonkeyPatch):
    def wrong(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        return 1.2 * fused(q, k, v, scale)

    def not_a_number(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        return torch.nan * fused(q, k, v, scale)

    monkeypatch.setitem(CUDA_FORMS, "kept", wrong)
    monkeypatch.setitem(CUDA_FORMS, "flash", not_a_number)
    assert set(right_steps(SMALL, CPU)) == {"fused"}


def test_a_softmax_uses_the_form_that_was_fastest():
    table = read_table(write_table(time_problems([SMALL], CPU, "A", injected)))
    assert chosen_form(SMALL, possible_forms(SMALL), "A", table) == "fused"
    assert possible_forms(SMALL)[0] == "kept"
    report = forms_report(table)
    assert "| 3.000 | 1.000 |" in report.markdown
    assert report.markdown.split()[-4:] == ["fused", "|", "kept", "|"]


def test_rows_of_a_problem_are_replaced_and_others_stay():
    old = [
        FormTime("A", "bfloat16", 16, 8, 40, 24, "split", 9.0, "2.0"),
        FormTime("A", "bfloat16", 16, 8, 41, 24, "fused", 9.0, "2.0"),
        FormTime("B", "bfloat16", 16, 8, 40, 24, "fused", 9.0, "2.0"),
    ]
    new = [FormTime("A", "bfloat16", 16, 8, 40, 24, "kept", 1.0, "2.1")]
    assert set(merged(old, new)) == {*old[1:], *new}
    assert merged(merged(old, new), new) == merged(old, new)


def test_the_command_fills_the_table(
    benchmark_run: ComposeBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The whole path, with the device and the times of the kernels replaced."""
    table = tmp_path / "measured_forms.csv"
    table.write_text(write_table([FormTime("B", "float16", 1, 1, 1, 1, "kept", 1.0, "2.0")]))
    monkeypatch.setattr(forms, "TABLE", table)
    monkeypatch.setattr(forms, "build_device", lambda dist: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A")
    monkeypatch.setattr(
        forms,
        "right_steps",
        lambda problem, device: {
            form: lambda: None for form in possible_forms(problem) if form in SECONDS
        },
    )
    monkeypatch.setattr(forms, "interleaved", lambda calls, **_: injected(calls))
    report = measure_forms(benchmark_run("i3d_nl5", "bench=forms", "quick=true"))
    rows = read_table(table.read_text())
    assert {row.device for row in rows} == {"A", "B"}
    for problem in problems(quick=True):
        form = chosen_form(problem, possible_forms(problem), "A", rows)
        best = min((f for f in possible_forms(problem) if f in SECONDS), key=SECONDS.__getitem__)
        assert form == best
    assert "split" in {row.form for row in rows}
    assert report.markdown.count("\n") > len(problems(quick=True))


def test_a_device_that_is_no_gpu_is_refused_with_the_key(benchmark_run: ComposeBenchmark):
    run: BenchmarkConfig = benchmark_run("i3d_nl5", "bench=forms")
    with pytest.raises(UsageError, match="CUDA"):
        measure_forms(run)


def test_the_problems_are_those_of_a_resnet_in_every_dtype():
    everything = problems(quick=False)
    assert set(problems(quick=True)) < set(everything)
    assert {problem.dtype for problem in everything} == {"bfloat16", "float16", "float32"}
    assert {(problem.d, problem.e) for problem in everything} == {
        (256, 256),
        (512, 256),
        (512, 512),
        (1024, 512),
    }
    assert any(problem.n == 32 * 14 * 14 for problem in everything)
