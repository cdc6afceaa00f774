"""bench=ops: time and memory of the non-local operations, forward and backward, batch 1.

Times are medians of calls made in turn in one process. Memory is measured in a fresh process for
each entry. The peers are the naive forms of nlnet/bench/naive.py and pytorchvideo's NonLocal.
"""

from dataclasses import replace

import torch

from nlnet.bench.naive import NAIVE
from nlnet.bench.operations.calls import FORMS, block_step, our_block, pairwise_step
from nlnet.bench.operations.denormals import underflow_row
from nlnet.bench.operations.forms import forms_report, problems, time_problems
from nlnet.bench.operations.memory import fresh_peak_bytes
from nlnet.bench.operations.shapes import FULL, HEADS, QUICK, Plan, Shape
from nlnet.bench.operations.tables import (
    Row,
    growth_picture,
    growth_table,
    heads_table,
    memory_table,
    ratio_table,
    underflow_table,
)
from nlnet.bench.peer import INSTANTIATIONS
from nlnet.bench.report import Report
from nlnet.bench.timing import interleaved
from nlnet.config import BenchmarkConfig
from nlnet.distributed.build import build_device
from nlnet.model.non_local.pairwise import PAIRWISE
from nlnet.numerics.denormals import flushed_denormals
from nlnet.runs.logger import progress_bar


@flushed_denormals()
def measure_operations(run: BenchmarkConfig) -> Report:
    """Measure time and memory of every pairwise function at the sizes of res3 and res4."""
    device = build_device(run.dist)
    report = measure_plan(QUICK if run.quick else FULL, device)
    if device.type != "cuda":
        return report
    wanted = problems(quick=run.quick)
    forms = forms_report(time_problems(wanted, device, torch.cuda.get_device_name(device)))
    text = f"{report.markdown}\n\n{forms.markdown}"
    return replace(report, markdown=text, numbers={**report.numbers, **forms.numbers})


def measure_plan(plan: Plan, device: torch.device) -> Report:
    """Measure the shapes of a plan."""
    memory = [_memory_row(shape, device) for shape in progress_bar(plan.memory, "memory")]
    operations = [
        operation_row(shape, device, plan.repeats)
        for shape in progress_bar(plan.shapes, "operations")
    ]
    blocks = [
        block_row(shape, device, plan.repeats) for shape in progress_bar(plan.shapes, "blocks")
    ]
    underflow = [
        underflow_row(shape)
        for shape in progress_bar(plan.underflow if device.type == "cpu" else [], "underflow")
    ]
    growth = [growth_row(shape, device) for shape in progress_bar(plan.growth, "growth")]
    heads = [heads_row(shape, device, plan.repeats) for shape in progress_bar(plan.heads, "heads")]
    text = [
        "## Operations: naive time / time\n",
        ratio_table(operations, list(NAIVE)),
        "\n## Blocks: pytorchvideo's time / time\n",
        ratio_table(blocks, list(INSTANTIATIONS)),
        "\n## Peak extra memory of a training step of one block, MB\n",
        memory_table(memory),
        "\n## Growth: milliseconds, keys pooled over space (ops.svg)\n",
        growth_table(growth),
        "\n## Blocks with several heads: time / time with one head\n",
        heads_table(heads),
    ]
    if underflow:
        text += [
            "\n## The Gaussian: milliseconds where denormal numbers are kept and flushed\n",
            underflow_table(underflow),
        ]
    numbers = {
        "operations": [row.numbers() for row in operations],
        "blocks": [row.numbers() for row in blocks],
        "memory": [row.numbers() for row in memory],
        "growth": [row.growth_numbers() for row in growth],
        "underflow": [row.numbers() for row in underflow],
        "heads": [row.numbers() for row in heads],
    }
    return Report("\n".join(text), numbers, {"ops.svg": growth_picture(growth)})


def operation_row(shape: Shape, device: torch.device, most: int) -> Row:
    """Time each pairwise function in our form and in the naive form."""
    times = {}
    for name in NAIVE:
        calls = {
            "ours": pairwise_step(PAIRWISE[name](shape.inner), shape, device),
            "naive": pairwise_step(NAIVE[name](shape.inner), shape, device),
        }
        times[name] = interleaved(calls, repeats=repeats(shape, most))
    return Row(shape, times)


def block_row(shape: Shape, device: torch.device, most: int) -> Row:
    """Time whole blocks of nlnet and of pytorchvideo; the latter counts as the naive form."""
    times = {}
    for name in INSTANTIATIONS:
        calls = {
            "ours": block_step(FORMS["ours"](name, shape), shape, device),
            "naive": block_step(FORMS["pytorchvideo"](name, shape), shape, device),
        }
        times[name] = interleaved(calls, repeats=repeats(shape, most))
    return Row(shape, times)


def growth_row(shape: Shape, device: torch.device) -> Row:
    """Time each function at one size in our form and, where its memory allows, the naive form."""
    times = {}
    for name in NAIVE:
        calls = {"ours": pairwise_step(PAIRWISE[name](shape.inner), shape, device)}
        if shape.naive_fits:
            calls["naive"] = pairwise_step(NAIVE[name](shape.inner), shape, device)
        times[name] = interleaved(calls, repeats=1 if shape.queries > 20_000 else 5)
    return Row(shape, times)


def heads_row(shape: Shape, device: torch.device, most: int) -> Row:
    """Time whole blocks with 1, 4 and 8 heads."""
    times = {}
    for name in NAIVE:
        calls = {
            str(heads): block_step(our_block(name, shape, heads), shape, device) for heads in HEADS
        }
        times[name] = interleaved(calls, repeats=repeats(shape, most))
    return Row(shape, times)


def _memory_row(shape: Shape, device: torch.device) -> Row:
    """Measure the peak extra bytes of a block's training step in every form of every function."""
    peaks = {}
    for name in NAIVE:
        forms = list(FORMS) if name in INSTANTIATIONS else ["ours", "naive"]
        if not shape.naive_fits:
            forms = ["ours"]
        peaks[name] = {form: fresh_peak_bytes(form, name, shape, device) for form in forms}
    return Row(shape, peaks)


def repeats(shape: Shape, most: int) -> int:
    """Return the number of calls: all for a small shape, a fifth for a large one."""
    return most if shape.queries * shape.keys < 2**24 else max(most // 5, 1)
