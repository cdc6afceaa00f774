"""bench=gpu: training steps, evaluations and blocks on a GPU, compared with pytorchvideo.

The contenders run one after another, so that each has the whole memory. The peer is pytorchvideo's
`create_resnet` of the same layout, under the same autocast, with torch's default settings. Every
contender is compared with float32 first; one that is wrong gets no figures.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch

from nlnet.bench.bars import bars
from nlnet.bench.gpu.blocks import measure_blocks
from nlnet.bench.gpu.networks import measure_network
from nlnet.bench.gpu.peaks import peak_flops
from nlnet.bench.gpu.plan import BLOCKS, FULL_PLAN, NETWORKS, QUICK_PLAN, TINY_PLAN, GpuPlan
from nlnet.bench.gpu.rows import GpuRow, csv_text, gpu_table
from nlnet.bench.gpu.targets import target_table, targets
from nlnet.bench.report import Report
from nlnet.bench.steps.costs import measured_ceiling
from nlnet.checks import one_of
from nlnet.config import BenchmarkConfig
from nlnet.distributed.build import build_device
from nlnet.errors import UsageError
from nlnet.runs.machine import cpu_model

PARTS = ("training", "evaluation", "block")


def measure_gpu(run: BenchmarkConfig) -> Report:
    """Measure the networks and blocks of the plan. Raises UsageError if there is no GPU."""
    device = build_device(run.dist)
    if device.type == "cuda":
        return measure_gpu_plan(QUICK_PLAN if run.quick else FULL_PLAN, run, device)
    if run.quick and run.dist.device == "cpu":
        return measure_gpu_plan(TINY_PLAN, run, device)
    raise UsageError(
        "bench=gpu: there is no CUDA device here; run it on a machine with a GPU (quick=true "
        "dist.device=cpu runs tiny sizes, to see that it works)"
    )


def measure_gpu_plan(plan: GpuPlan, run: BenchmarkConfig, device: torch.device) -> Report:
    """Measure the part of a plan that the run names with `only`."""
    names = {name: name for name in (*(network.name for network in NETWORKS), BLOCKS)}
    wanted = {one_of("only", name, names) for name in run.only} or set(names)
    is_cpu = device.type == "cpu"
    device_name = cpu_model() if is_cpu else torch.cuda.get_device_name(device)
    rows = []
    with torch.compiler.set_stance("default" if plan.compiles else "force_eager"):
        for row in _measure(plan, run, device, device_name, wanted):
            print(f"{row.subject}: {row.part}, {row.contender}: {_result(row)}", file=sys.stderr)
            rows.append(row)
    stem = f"gpu-{_file_name('cpu' if is_cpu else device_name)}"
    peak, ceiling = peak_flops(device_name, "bf16"), measured_ceiling(device, "bf16")
    rate = "has no known rate" if peak is None else f"{peak / 1e12:,.0f} TFLOP/s by its data sheet"
    text = [
        f"{device_name}: {rate}; {ceiling / 1e12:,.3g} TFLOP/s measured with a large product, in "
        f"bfloat16. Steps are in {plan.precision}; ratios are against the first row of the same "
        "network or block. Memory is that of tensors"
        f"{'; the figures of a CPU mean nothing' if is_cpu else ''}. Table and picture: "
        f"{stem}.csv, {stem}.svg.\n",
        "## Wanted on an H100 or H200\n",
        target_table(targets(rows, device_name)),
    ]
    for part in PARTS:
        text += [f"\n## {part.capitalize()}\n", gpu_table([r for r in rows if r.part == part])]
    numbers = {"rows": [asdict(row) for row in rows], "peak": peak, "ceiling": ceiling}
    files = {f"{stem}.csv": csv_text(rows), f"{stem}.svg": gpu_picture(rows)}
    return Report("\n".join(text), numbers, files, stem)


def gpu_picture(rows: Sequence[GpuRow]) -> str:
    """Clips per second of the training steps, as SVG text."""
    groups: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if row.part == "training":
            groups.setdefault(row.subject, []).append((row.contender, row.clips_per_s or 0.0))
    return bars(list(groups.items()), "clips per second, training")


def _measure(
    plan: GpuPlan, run: BenchmarkConfig, device: torch.device, device_name: str, wanted: set[str]
) -> Iterator[GpuRow]:
    for network in plan.networks:
        if network.name in wanted:
            yield from measure_network(network, run, plan, device, device_name)
    for shape in plan.shapes if BLOCKS in wanted else ():
        yield from measure_blocks(shape, run.trainer, plan, device)


def _result(row: GpuRow) -> str:
    return row.reason or f"{row.ms:,.2f} ms, {row.peak_mb:,.0f} MB"


def _file_name(device: str) -> str:
    """A device's name in small letters, with - between its words."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
