"""bench=gpu at tiny sizes on the CPU, through the code that measures the large ones."""

import csv
import dataclasses
from xml.etree import ElementTree

import pytest
import torch

from nlnet.bench.bars import bars
from nlnet.bench.gpu.agreement import check_agreement
from nlnet.bench.gpu.blocks import block_forms, measure_blocks
from nlnet.bench.gpu.measure import Measurement, measure_step
from nlnet.bench.gpu.networks import OURS, PEER, network_contenders
from nlnet.bench.gpu.peaks import peak_flops
from nlnet.bench.gpu.plan import FULL_PLAN, NETWORKS, QUICK_PLAN, TINY_PLAN
from nlnet.bench.gpu.rows import GpuRow, csv_text, filled_row, gpu_table
from nlnet.bench.gpu.run import measure_gpu
from nlnet.bench.gpu.targets import target_table, targets
from nlnet.bench.operations.shapes import Shape
from nlnet.cli.compose import compose_run
from nlnet.config import TrainerConfig
from nlnet.errors import UsageError, UserError
from nlnet.model.non_local.pairwise import PAIRWISE

CPU = torch.device("cpu")
DEVICES = {
    "NVIDIA H200": 989,
    "NVIDIA H200 NVL": 836,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA GH200 480GB": 989,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A10": 125,
    "NVIDIA B200": 2250,
    "NVIDIA L40S": 362,
    "NVIDIA GeForce RTX 4090": 165,
}


@pytest.mark.parametrize("device", DEVICES)
def test_the_rate_of_a_device_is_found_by_its_name(device: str):
    assert peak_flops(device, "bf16") == peak_flops(device, "fp16") == 1e12 * DEVICES[device]
    assert peak_flops(device, "fp32") == 0.5e12 * DEVICES[device]  # TF32


@pytest.mark.parametrize("device", ["AMD EPYC", "NVIDIA H20", "NVIDIA A1000", ""])
def test_the_rate_of_another_device_is_not_known(device: str):
    assert peak_flops(device, "bf16") is None


def test_the_plans_hold_the_networks_and_sizes_of_the_paper():
    runs = [compose_run(network.experiment, *network.words) for network in FULL_PLAN.networks]
    blocks = [len(run.model.non_local.res3) + len(run.model.non_local.res4) for run in runs]
    assert blocks == [0, 0, 5, 10, 10]
    assert [run.data.clip.num_frames for run in runs] == [8, 8, 8, 8, 128]
    assert [(s.stage, s.frames, s.side) for s in FULL_PLAN.shapes] == [
        *(("res3", frames, 28) for frames in (4, 16)),
        *(("res4", frames, 14) for frames in (4, 16)),
    ]
    assert FULL_PLAN.networks[-1].batch >= 8
    assert set(QUICK_PLAN.networks) < set(FULL_PLAN.networks)
    assert set(QUICK_PLAN.shapes) < set(FULL_PLAN.shapes)


def test_each_part_begins_with_its_peer():
    found = network_contenders(TrainerConfig(), "bf16")
    for training in (True, False):
        part = [contender for contender in found if contender.training is training]
        assert part[0].name == PEER and part[0].precision == "bf16"
        assert len({contender.name for contender in part}) == len(part)
        assert all(c.trainer is None for c in part if c.name.startswith(PEER))
        assert all(c.trainer is not None for c in part if c.name.startswith(OURS))
    assert [c.name for c in found if c.compiled or (c.trainer and c.trainer.compile)] == [
        f"{PEER}, compiled",
        f"{OURS}, compiled",
    ]


def test_a_step_is_repeated_and_its_memory_is_told():
    calls = []
    plan = dataclasses.replace(TINY_PLAN, warmup=2, windows=3, steps=4)
    measured = measure_step(lambda: lambda: calls.append(1), plan, CPU)
    assert len(calls) == 2 + 3 * 4
    assert measured.seconds is not None and 0 < measured.seconds < 1
    assert measured.peak_mb is not None and measured.peak_mb >= 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory"),
        (UserError("it: the loss is nan"), "refused: it: the loss is nan"),
        (RuntimeError("CUDA error: misaligned address\nmore"), "refused: CUDA error: misaligned"),
    ],
)
def test_a_contender_that_fails_has_a_reason(error: Exception, reason: str):
    def build():
        raise error

    measured = measure_step(build, TINY_PLAN, CPU)
    assert measured.seconds is None and measured.reason.startswith(reason)


def result(loss: float, *gradient: float):
    return lambda: (torch.tensor(loss), [torch.tensor(gradient)])


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


NAN = float("nan")
DISAGREEMENTS = {
    "a loss that is not finite": (result(6.0, 1, 2), result(NAN, 1, 2), "the loss is nan"),
    "a gradient that is not": (result(6.0, 1, 2), result(6.0, 1, NAN), "is not finite"),
    "another loss": (result(6.0, 1, 2), result(6.6, 1, 2), "in float32 it is 6"),
    "other gradients": (result(6.0, 1, 2), result(6.0, 2, -1), r"float32 \(cosine 0\)"),
    "not comparable": (out_of_memory, result(6.0, NAN, 2), "is not finite"),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_a_wrong_contender_is_refused(name: str):
    exact, found, message = DISAGREEMENTS[name]
    with pytest.raises(UserError, match=f"^it: .*{message}"):
        check_agreement("it", exact, found)


@pytest.mark.parametrize("exact", [result(6.0, 1, 2), out_of_memory])
def test_a_contender_within_the_rounding_is_accepted(exact):
    check_agreement("it", exact, result(6.02, 1.01, 1.99))


PEER_ROW = filled_row(
    GpuRow("training", "i3d_nl5", PEER, "bf16", 32),
    Measurement(0.1, 2e4),
    peer=None,
    peak_share=2e-4,
)


def our_row(network: str, seconds: float, peak: float, batch: int = 32) -> GpuRow:
    row = GpuRow("training", network, OURS, "bf16", batch)
    return filled_row(row, Measurement(seconds, peak), peer=PEER_ROW)


def test_a_row_has_its_ratios():
    assert (PEER_ROW.clips_per_s, PEER_ROW.speed, PEER_ROW.memory) == (320, 1, 1)
    assert PEER_ROW.mfu == pytest.approx(0.064)
    row = our_row("i3d_nl5", 0.04, 1e4)
    assert (row.ms, row.speed, row.memory) == (40, pytest.approx(2.5), 0.5)


def test_the_table_and_the_csv_hold_every_row():
    failed = filled_row(
        GpuRow("training", "i3d", PEER, "bf16", 32), Measurement(reason="out of memory"), peer=None
    )
    after = filled_row(
        GpuRow("training", "i3d", OURS, "bf16", 32), Measurement(0.1, 1.0), peer=failed
    )
    rows = [PEER_ROW, failed, after]
    read = list(csv.DictReader(csv_text(rows).splitlines()))
    assert [row["reason"] for row in read] == ["", "out of memory", ""]
    assert (read[0]["ms"], read[1]["ms"], read[2]["speed"]) == ("100.0", "", "")
    table = gpu_table(rows)
    assert "out of memory" in table and "6.4%" in table and "i3d_nl5: pytorchvideo" in table


def test_targets_are_met_missed_or_not_measured():
    good = [
        PEER_ROW,
        our_row("i3d", 0.03, 1.0e4),
        our_row("i3d_nl5", 0.05, 1.3e4),  # the compiled form is faster, so it counts
        our_row("i3d_nl5", 0.035, 1.1e4),
        our_row("i3d_nl10_128x1", 1.0, 9e4, batch=8),
    ]
    found = targets(good, "NVIDIA H200")
    assert [target.met for target in found] == [True] * 4
    assert found[0].measured == pytest.approx(0.1 / 0.035)
    assert len(targets(good, "NVIDIA H100 80GB HBM3")) == 3
    bad = [PEER_ROW, our_row("i3d", 0.1, 1e4), our_row("i3d_nl5", 0.1, 2e4)]
    assert [target.met for target in targets(bad, "NVIDIA H200")] == [False] * 4
    assert [target.measured is None for target in targets([], "NVIDIA H200")] == [True] * 4
    assert target_table(found).count("yes") == 4
    assert target_table(targets([], "")).count("not measured") == 3


def test_bars_are_in_proportion():
    groups = [("a", [("x", 1.0), ("y & z", 4.0)]), ("b", [("x", 2.0)])]
    root = ElementTree.fromstring(bars(groups, "clips"))
    widths = [part.attrib["width"] for part in root.iter() if "fill" in part.attrib]
    assert widths == ["100%", "90.0", "360.0", "180.0"]  # the first one is the background
    ElementTree.fromstring(bars([], "clips"))


@pytest.mark.parametrize("words", [["quick=true"], ["dist.device=cpu"]])
def test_without_a_gpu_one_line_says_what_to_do(
    words: list[str], benchmark_run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = benchmark_run("c2d_nl1", "dist.device=auto", *words)
    with pytest.raises(UsageError, match=r"^bench=gpu: there is no CUDA device[^\n]*$"):
        measure_gpu(run)


def test_an_unknown_network_is_refused(benchmark_run):
    run = benchmark_run("c2d_nl1", "quick=true", "only=[i3d_nl6]")
    with pytest.raises(UsageError, match=r"^only=i3d_nl6 is unknown.*i3d_nl5.*blocks"):
        measure_gpu(run)


def test_every_function_is_measured_in_every_form(shape: Shape):
    with torch.compiler.set_stance("force_eager"):
        rows = list(measure_blocks(shape, TrainerConfig(), TINY_PLAN, CPU))
    assert len(rows) == sum(len(block_forms(name)) for name in PAIRWISE)
    assert not [row.reason for row in rows if row.reason]
    assert [row.speed for row in rows if row.contender.endswith(": pytorchvideo")] == [1, 1]


@pytest.mark.slow
def test_a_whole_benchmark_of_a_tiny_network(benchmark_run):
    run = benchmark_run("c2d_nl1", "bench=gpu", "quick=true", "only=[i3d_nl5]")
    report = measure_gpu(run)
    assert set(report.files) == {"gpu-cpu.csv", "gpu-cpu.svg"} and report.stem == "gpu-cpu"
    rows = list(csv.DictReader(report.files["gpu-cpu.csv"].splitlines()))
    assert [(row["part"], row["contender"]) for row in rows] == [
        ("training" if contender.training else "evaluation", contender.name)
        for contender in network_contenders(run.trainer, "fp32")
    ]
    assert {row["subject"] for row in rows} == {"i3d_nl5"}
    assert all(float(row["ms"]) > 0 and not row["reason"] for row in rows)
    assert "i3d_nl5, training, x pytorchvideo" in report.markdown
    ElementTree.fromstring(report.files["gpu-cpu.svg"])


def test_a_network_of_every_name_can_be_chosen():
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_on_the_gpu(benchmark_run, monkeypatch: pytest.MonkeyPatch):
    """The tiny network in bfloat16, with the compiler."""
    tiny = dataclasses.replace(TINY_PLAN, precision="bf16", compiles=True)
    monkeypatch.setattr("nlnet.bench.gpu.run.QUICK_PLAN", tiny)
    run = benchmark_run("c2d_nl1", "dist.device=cuda", "quick=true")
    run = dataclasses.replace(run, batch=None)
    report = measure_gpu(run)
    (table,) = (text for name, text in report.files.items() if name.endswith(".csv"))
    rows = list(csv.DictReader(table.splitlines()))
    assert not [row["reason"] for row in rows if row["reason"]]
    assert all(float(row["peak_mb"]) > 0 for row in rows)
