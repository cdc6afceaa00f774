"""bench=step on a clip of 2 x 32 x 32, through the code that measures the large ones."""

import dataclasses
import itertools

import pytest
import torch

from nlnet.bench.steps.arithmetic import check_step
from nlnet.bench.steps.calls import PHASES, build_call
from nlnet.bench.steps.compete import ContenderResult, compete
from nlnet.bench.steps.contenders import LEVERS, Contender, groups
from nlnet.bench.steps.costs import clip_operations, measured_ceiling
from nlnet.bench.steps.inputs import input_seconds
from nlnet.bench.steps.run import measure_groups
from nlnet.bench.steps.tables import share_table, step_table
from nlnet.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("quick", [True, False])
def test_each_group_begins_with_its_peer_and_times_one_thing(benchmark_run, quick: bool):
    trainer = benchmark_run("i3d_nl5").trainer
    found = groups(trainer, CPU, quick=quick)
    assert len(found) == (2 if quick else 3)
    for group in found:
        assert group[0].trainer is None
        assert len({contender.training for contender in group}) == 1
        assert len({contender.name for contender in group}) == len(group)
    assert Contender("nlnet", True, trainer.precision, trainer) in found[0]


def test_each_lever_changes_one_setting_of_the_one_above():
    settings = list(LEVERS.values())
    for above, below in itertools.pairwise(settings):
        assert sum(above[key] != below[key] for key in above) == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ours", [True, False])
def test_a_call_tells_the_seconds_of_its_phases(benchmark_run, training: bool, ours: bool):
    run = benchmark_run("c2d_nl1")
    contender = Contender("it", training, "fp32", run.trainer if ours else None)
    call = build_call(contender, run, 2, CPU)
    phases = call()
    assert tuple(phases) == (PHASES if training else ("forward",))
    assert all(0 < seconds < 60 for seconds in phases.values())


@pytest.mark.slow
@pytest.mark.usefixtures("wrong_kernel")
def test_a_wrong_kernel_is_replaced_in_ours_and_named_in_the_peer(
    benchmark_run, capsys: pytest.CaptureFixture[str]
):
    run = benchmark_run("c2d_nl1", "trainer.lean=false")  # lean modules do not use this kernel
    ours = Contender("ours", True, "bf16", run.trainer)
    assert build_call(ours, run, 2, CPU)()["backward"] > 0
    peer = Contender("peer", True, "bf16", None)
    assert build_call(peer, run, 2, CPU)()["backward"] > 0
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("ours: ") and "'sliced'" in line for line in lines) == 3
    assert sum(line.startswith("peer: ") and "is wrong here" in line for line in lines) == 3


def test_a_loss_that_is_not_that_of_float32_is_refused():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 3))
    video, label = torch.randn(2, 3, 2, 2, 2), torch.tensor([0, 1])
    check_step("it", model, video, label, torch.bfloat16)
    model.register_forward_hook(
        lambda m, x, y: y if y.dtype == torch.float32 else 2 * y + x[0].sum()
    )
    with pytest.raises(UserError, match="it: the loss is"):
        check_step("it", model, video, label, torch.bfloat16)
    broken = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 3))
    broken[1].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(UserError, match="gradients are not"):
        check_step("it", broken, video, label, None)


def test_operations_of_a_clip_are_those_of_the_published_network(benchmark_run):
    """I3D-NL5 has 36.54 G multiply-adds at 8 x 224 x 224; conv1 is 5 x 7 x 7, 3 to 64."""
    run = benchmark_run("i3d_nl5", "data.clip.num_frames=8", "data.clip.crop_size=224")
    operations = clip_operations(run)
    assert operations["evaluation"] == pytest.approx(2 * 36.54e9, rel=1e-3)
    stem = 3 * operations["evaluation"] - operations["training"]
    assert stem == 2 * (5 * 7 * 7 * 3 * 64) * (8 * 112 * 112)


def test_the_ceiling_and_the_input_are_measured(benchmark_run):
    assert 1e6 < measured_ceiling(CPU, "fp32", size=64) < 1e14
    seconds = input_seconds(benchmark_run("c2d_nl1").data.clip, 2, num_frames=20)
    assert set(seconds) == {"decode", "transform"}
    assert all(0 < value < 60 for value in seconds.values())


RESULT = ContenderResult(
    name="nlnet",
    training=True,
    precision="fp32",
    configured=True,
    seconds=2.0,
    phases={"forward": 0.5, "backward": 1.4, "optimizer": 0.1},
    speed=1.5,
    peak_mb=1234.0,
    memory=0.8,
    repeats=5,
)


def test_tables_hold_the_numbers():
    evaluation = dataclasses.replace(RESULT, training=False, seconds=1.0, speed=3.0)
    table = step_table([RESULT, evaluation], [1.0, 2.0], [0.5, 0.25])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[2] == ["training: nlnet", "2,000", "1", "1.50", "50 %", "1,234", "0.80"]
    assert rows[3] == ["evaluation: nlnet", "1,000", "2", "3.00", "25 %", "1,234", "0.80"]
    shares = share_table(RESULT, {"decode": 0.9, "transform": 0.1}, batch=2)
    cells = [cell.strip() for cell in shares.splitlines()[-1].split("|")[1:-1]]
    assert cells == ["45.0 %", "5.0 %", "12.5 %", "35.0 %", "2.5 %"]


@pytest.mark.slow
def test_a_whole_benchmark_of_a_small_clip(benchmark_run):
    """Two groups of two contenders, each in its own process."""
    run = benchmark_run("c2d_nl1", "data.clip.crop_size=64")
    pairs = [
        [
            Contender("peer", training, "fp32", None),
            Contender("nlnet", training, "fp32", run.trainer),
        ]
        for training in (True, False)
    ]
    report = measure_groups(run, pairs, CPU, repeats=2)
    rows = report.numbers["rows"]
    assert isinstance(rows, list)
    assert [(row["name"], row["training"]) for row in rows] == [
        (contender.name, contender.training) for pair in pairs for contender in pair
    ]
    assert [row["configured"] for row in rows] == [False, True, False, False]
    assert all(row["repeats"] == 2 and row["seconds"] > 0 and row["peak_mb"] > 0 for row in rows)
    assert all((row["speed"], row["memory"]) == (1, 1) for row in rows if row["name"] == "peer")
    assert "optimizer" in report.markdown
    assert "2 x 64^2" in report.markdown


@pytest.mark.slow
def test_a_contender_that_fails_ends_the_benchmark(benchmark_run):
    """Its process ends when the trainer refuses the precision; nothing waits for its result."""
    run = benchmark_run("c2d_nl1")
    broken = Contender("broken", False, "fp99", run.trainer)
    with pytest.raises(UserError, match="broken"):
        compete([broken], run, 1, 1)
