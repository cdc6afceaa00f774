"""bench=ops: time and memory of the non-local operations, forward and backward, batch 1.

Times are medians of calls taken in turn in one process, memory is measured in a fresh process
each. The peers are the naive form of nlnet/bench/naive.py and pytorchvideo's NonLocal.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nlnet.bench.measure import Report, interleaved
from nlnet.bench.naive import NAIVE
from nlnet.bench.peer import create_nonlocal
from nlnet.bench.picture import Curve, log_log
from nlnet.cli.sweep import markdown
from nlnet.config import BenchmarkConfig
from nlnet.distributed.ranks import pick_device
from nlnet.model.non_local.block import NonLocalBlock, Output, Subsample
from nlnet.model.non_local.pairwise import PAIRWISE, Maps, Pairwise
from nlnet.runs.logger import progress_bar

PEER = {"embedded_gaussian": "softmax", "dot_product": "dot_product"}  # pytorchvideo has two
FRESH_PROCESS = {
    "MALLOC_MMAP_THRESHOLD_": str(2**16),  # freed tensors go back to the system at once
    "PYTHONPATH": str(Path(__file__).parent),  # the server that forks them imports this file
}
LARGEST_NAIVE = 2**28  # pairs of positions, 1 GB for each affinity; above, it is not tried


class Shape(NamedTuple):
    """A map of `channels` x `frames` x `side` x `side`, its keys pooled over space or not."""

    channels: int
    frames: int
    side: int
    pooled: bool

    @property
    def queries(self) -> int:
        return self.frames * self.side**2

    @property
    def keys(self) -> int:
        return self.queries // 4 if self.pooled else self.queries

    def __str__(self) -> str:
        stage = {512: "res3", 1024: "res4"}[self.channels]
        return f"{stage}, T = {self.frames}, N = {self.queries:,}, M = {self.keys:,}"


SHAPES = [
    Shape(channels, frames, side, pooled)
    for channels, side in ((512, 28), (1024, 14))
    for frames in (4, 8, 16)
    for pooled in (True, False)
]
GROWTH = [Shape(512, frames, 28, pooled=True) for frames in (1, 2, 4, 8, 16, 32, 64)]
REMEMBERED = [SHAPES[1], SHAPES[4], SHAPES[5], SHAPES[11], GROWTH[-1]]  # memory is measured


def measure(run: BenchmarkConfig) -> Report:
    """Time and memory of every pairwise function; the shapes are those of res3 and res4."""
    device = pick_device(run.dist.device)
    shapes = [shape for shape in SHAPES if shape.frames == 4] if run.quick else SHAPES
    growing = GROWTH[:3] if run.quick else GROWTH
    remembered = SHAPES[1:2] if run.quick else REMEMBERED
    memory = [memory_row(shape, device) for shape in progress_bar(remembered, "memory")]
    operations = [
        operation_row(shape, device, run.quick) for shape in progress_bar(shapes, "operations")
    ]
    blocks = [block_row(shape, device, run.quick) for shape in progress_bar(shapes, "blocks")]
    growth = [growth_row(shape, device) for shape in progress_bar(growing, "growth")]
    text = [
        "## Operations: naive time / time\n",
        ratio_table(operations, list(NAIVE)),
        "\n## Blocks: pytorchvideo's time / time\n",
        ratio_table(blocks, list(PEER)),
        "\n## Peak extra memory of a training step of one block, MB\n",
        memory_table(memory),
        "\n## Growth: milliseconds, keys pooled over space (ops.svg)\n",
        growth_table(growth),
    ]
    numbers = {"operations": operations, "blocks": blocks, "memory": memory, "growth": growth}
    return Report("\n".join(text), numbers, {"ops.svg": growth_picture(growth)})


Row = dict[str, Any]


def operation_row(shape: Shape, device: torch.device, quick: bool) -> Row:
    """Seconds of each pairwise function in our form and the naive one."""
    row: Row = {"shape": str(shape)}
    for name in NAIVE:
        inner = shape.channels // 2
        calls = {
            "ours": pairwise_step(PAIRWISE[name](inner), shape, device),
            "naive": pairwise_step(NAIVE[name](inner), shape, device),
        }
        row[name] = interleaved(calls, repeats=repeats(shape, quick))
    return row


def block_row(shape: Shape, device: torch.device, quick: bool) -> Row:
    """Seconds of whole blocks, ours and pytorchvideo's."""
    row: Row = {"shape": str(shape)}
    for name in PEER:
        calls = {
            "ours": block_step(BLOCKS["ours"](name, shape), shape, device),
            "naive": block_step(BLOCKS["pytorchvideo"](name, shape), shape, device),
        }
        row[name] = interleaved(calls, repeats=repeats(shape, quick))
    return row


def growth_row(shape: Shape, device: torch.device) -> Row:
    """Seconds of each function in both forms, at one size; the naive form while it fits."""
    row: Row = {"N": shape.queries, "M": shape.keys}
    for name in NAIVE:
        inner = shape.channels // 2
        calls = {"ours": pairwise_step(PAIRWISE[name](inner), shape, device)}
        if shape.queries * shape.keys <= LARGEST_NAIVE:
            calls["naive"] = pairwise_step(NAIVE[name](inner), shape, device)
        row[name] = interleaved(calls, repeats=1 if shape.queries > 20_000 else 5)
    return row


def repeats(shape: Shape, quick: bool) -> int:
    """More calls of what takes little time."""
    most = 5 if quick else 15
    return most if shape.queries * shape.keys < 2**24 else most // 5


def pairwise_step(pairwise: Pairwise, shape: Shape, device: torch.device) -> Callable[[], object]:
    """Forward and backward of a pairwise function on random maps."""
    n, m, e = shape.queries, shape.keys, shape.channels // 2
    d = e if pairwise.embedded else shape.channels
    behind = pairwise.behind_theta()
    if behind is not None:
        d = behind.shape[0]
    sizes = {"theta": (1, n, d), "phi": (1, m, d), "g": (1, m, e), "mask": (1, m)}
    torch.manual_seed(0)
    tokens = {name: torch.randn(size, device=device) for name, size in sizes.items()}
    if not pairwise.unary:
        del tokens["mask"]
    for token in tokens.values():
        token.requires_grad_()
    maps = Maps(tokens["theta"], tokens["phi"], tokens["g"], tokens.get("mask"))
    cotangent = torch.randn(1, n, e, device=device)
    return lambda: torch.autograd.grad(pairwise(maps), list(tokens.values()), cotangent)


def block_step(block: nn.Module, shape: Shape, device: torch.device) -> Callable[[], object]:
    """Forward and backward of a block on a random map, in the layout that each prefers."""
    torch.manual_seed(0)
    video = torch.randn(1, shape.channels, shape.frames, shape.side, shape.side, device=device)
    if isinstance(block, NonLocalBlock):
        video = video.contiguous(memory_format=torch.channels_last_3d)
    cotangent = torch.randn_like(video)
    inputs = [video.requires_grad_(), *block.to(device).parameters()]
    return lambda: torch.autograd.grad(block(video), inputs, cotangent)


def our_block(name: str, shape: Shape) -> nn.Module:
    where = "input" if shape.pooled else "none"
    output = Output(zero_init=False)
    return NonLocalBlock(shape.channels, pairwise=name, subsample=Subsample(where), output=output)


def naive_block(name: str, shape: Shape) -> nn.Module:
    block = our_block(name, shape)
    block.set_submodule("pairwise", NAIVE[name](shape.channels // 2))
    return block


def peer_block(name: str, shape: Shape) -> nn.Module:
    return create_nonlocal(
        dim_in=shape.channels,
        dim_inner=shape.channels // 2,
        pool_size=(1, 2, 2) if shape.pooled else (1, 1, 1),
        instantiation=PEER[name],
    )


BLOCKS: dict[str, Callable[[str, Shape], nn.Module]] = {
    "ours": our_block,
    "naive": naive_block,
    "pytorchvideo": peer_block,
}


def memory_row(shape: Shape, device: torch.device) -> Row:
    """Peak extra bytes of one training step, of every function in every form."""
    row: Row = {"shape": str(shape)}
    for name in NAIVE:
        forms = list(BLOCKS) if name in PEER else ["ours", "naive"]
        if shape.queries * shape.keys > LARGEST_NAIVE:
            forms = ["ours"]
        row[name] = {form: in_fresh_process(form, name, shape, device) for form in forms}
    return row


def in_fresh_process(form: str, name: str, shape: Shape, device: torch.device) -> int:
    os.environ.update(FRESH_PROCESS)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # its imports take seconds: once, not in each
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        threads = torch.get_num_threads()
        return pool.submit(peak_bytes, form, name, shape, str(device), threads).result()


def peak_bytes(form: str, name: str, shape: Shape, device: str, threads: int) -> int:
    """What one training step of a block needs above what the process held before it."""
    torch.set_num_threads(threads)
    small = SHAPES[1]  # large enough to load every library that the shape may need
    block_step(BLOCKS[form](name, small), small, torch.device(device))()
    step = block_step(BLOCKS[form](name, shape), shape, torch.device(device))
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """A size of this process in bytes, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def ratio_table(rows: list[Row], names: list[str]) -> str:
    cells = [
        [row["shape"], *(f"{row[name]['naive'] / row[name]['ours']:.2f}" for name in names)]
        for row in rows
    ]
    return markdown(["shape", *names], cells)


def memory_table(rows: list[Row]) -> str:
    columns = [(name, form) for name in NAIVE for form in BLOCKS if form in rows[0][name]]
    cells = [[r["shape"], *(megabytes(r[name].get(form)) for name, form in columns)] for r in rows]
    return markdown(["shape", *(f"{name}, {form}" for name, form in columns)], cells)


def megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.0f}"


def growth_table(rows: list[Row]) -> str:
    columns = [(name, form) for name in NAIVE for form in ("ours", "naive")]
    cells = [
        [f"{row['N']:,}", f"{row['M']:,}", *(millis(row[name].get(form)) for name, form in columns)]
        for row in rows
    ]
    return markdown(["N", "M", *(f"{name}, {form}" for name, form in columns)], cells)


def millis(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:,.1f}"


def growth_picture(rows: list[Row]) -> str:
    """Time over N, a curve for each function in each form."""
    curves = [
        Curve(
            f"{name}, {form}",
            [(row["N"], row[name][form]) for row in rows if form in row[name]],
            color=color,
            dashed=form == "naive",
        )
        for color, name in enumerate(NAIVE)
        for form in ("ours", "naive")
    ]
    return log_log(curves, "positions N (keys N / 4)", "seconds, forward and backward")
