import itertools
import re
from dataclasses import replace

import pytest
from tqdm import tqdm

from nlnet.checkpoint import EpochRecord
from nlnet.runs.lines import MIN_BAR, bar_format, duration, epoch_line, epoch_rows, step_line
from nlnet.runs.record import EpochReport, Rates, StepReport

COLUMNS = 80

EPOCHS = [(1, 1), (3, 60), (100, 100), (1234, 5000)]
LOSSES = [0.0001, 2.0, 10.1234]
VALS = [
    {},
    {"mean_ap": 42.13},
    {"mean_ap": 100.0},
    {"top1": 8.33, "top5": 58.33, "mean_class": 8.33},
    {"top1": 100.0, "top5": 100.0, "mean_class": 100.0},
    {f"accuracy_of_group_{i}": 100.0 for i in range(9)},
]
RATES = Rates(2.0, 50.0, 60.0, 24.0, 25.0)
SECONDS_LEFT = [None, 0.0, 59.6, 45_000.0, 400_000.0]


def epoch_report(
    epoch: int = 3,
    num_epochs: int = 60,
    loss: float = 2.0,
    val: dict[str, float] | None = None,
    seconds_left: float | None = 310.0,
) -> EpochReport:
    record = EpochRecord(
        epoch=epoch,
        global_step=4 * epoch,
        seconds=3725.0,
        clips_per_second=24.0,
        data_wait=25.0,
        train={"loss": loss, "top1": 100.0 if loss > 2 else 50.0, "top5": 100.0},
        val={"top1": 50.0, "top5": 60.0} if val is None else val,
        main=None,
    )
    return EpochReport(record, num_epochs, is_best=False, seconds_left=seconds_left)


def step_report(
    epoch: int = 3,
    num_epochs: int = 60,
    rates: Rates = RATES,
    seconds_left: float = 310.0,
) -> StepReport:
    return StepReport(
        epoch=epoch,
        num_epochs=num_epochs,
        step=4,
        steps_per_epoch=40,
        global_step=40 * (epoch - 1) + 4,
        total_steps=40 * num_epochs,
        running=rates,
        recent=None,
        lr=0.1,
        grad_norm=2.5,
        seconds_left=seconds_left,
    )


def test_the_line_of_an_epoch_has_all_numbers():
    assert epoch_line(epoch_report()) == (
        "epoch 3/60  1:02:05  24.0 clips/s  data wait 25%"
        "  |  train: loss 2.0000  top1 50.00%  top5 100.00%"
        "  |  val: top1 50.00%  top5 60.00%  |  0:05:10 left"
    )


def test_the_main_metric_comes_first():
    report = epoch_report(val={"top1": 50.0, "top5": 60.0, "mean_class": 40.0})
    report = report._replace(record=replace(report.record, main="mean_class"))
    wanted = "val: mean_class 40.00%  top1 50.00%  top5 60.00%"
    assert f"  |  {wanted}  |  " in epoch_line(report)
    assert epoch_rows(report).splitlines()[0] == f"epoch 3/60  {wanted}"


def test_the_line_of_the_last_epoch_without_validation_has_no_empty_part():
    assert epoch_line(epoch_report(val={}, seconds_left=None)) == (
        "epoch 3/60  1:02:05  24.0 clips/s  data wait 25%"
        "  |  train: loss 2.0000  top1 50.00%  top5 100.00%"
    )


def test_the_rows_of_an_epoch_begin_with_the_most_important_numbers():
    assert epoch_rows(epoch_report()).splitlines() == [
        "epoch 3/60  val: top1 50.00%  top5 60.00%",
        "     train: loss 2.0000  top1 50.00%  top5 100.00%  0:05:10 left  24.0 clips/s",
    ]


@pytest.mark.parametrize("val", VALS, ids=lambda val: f"{len(val)}-{next(iter(val), None)}")
@pytest.mark.parametrize(("epoch", "num_epochs"), EPOCHS)
def test_an_epoch_has_at_most_two_rows_of_80_columns(
    val: dict[str, float], epoch: int, num_epochs: int
):
    for loss, seconds_left in itertools.product(LOSSES, SECONDS_LEFT):
        report = epoch_report(epoch, num_epochs, loss, val, seconds_left)
        rows = epoch_rows(report).splitlines()
        assert len(rows) == (2 if val else 1)
        assert all(len(row) < COLUMNS for row in rows)
        assert rows[0].startswith(f"epoch {epoch}/{num_epochs}  ")
        assert f"loss {loss:.4f}" in rows[-1]
        if val:
            name, value = next(iter(val.items()))
            assert f"val: {name} {value:.2f}%" in rows[0]
        if seconds_left is not None and val:
            assert f"{duration(seconds_left)} left" in rows[1]
        assert not any(row.endswith(" ") for row in rows)


def test_the_line_of_a_step_has_all_numbers():
    assert step_line(step_report()) == (
        "epoch 3/60  step 4/40  loss 2.0000  top1 50.00%  24.0 clips/s  data wait 25%  lr 0.1"
        "  0:05:10 left"
    )


def shown_bar(report: StepReport, columns: int) -> str:
    """Let tqdm fill in the bar, in as many columns as it uses on a terminal."""
    return tqdm.format_meter(
        report.global_step,
        report.total_steps,
        elapsed=1.0,
        ncols=columns - 1,
        bar_format=bar_format(report, columns),
    )


def test_all_important_numbers_are_beside_the_bar_at_80_columns():
    shown = shown_bar(step_report(12), COLUMNS)
    assert re.fullmatch(
        r"epoch 12/60  18%\|.{10}\| loss 2\.000  top1 50\.0%  0:05:10 left  24\.0 clips/s", shown
    )


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
@pytest.mark.parametrize(("epoch", "num_epochs"), EPOCHS)
def test_the_bar_keeps_a_readable_width(columns: int, epoch: int, num_epochs: int):
    for loss, top1, speed, left in itertools.product(
        LOSSES, [0.0, 100.0], [0.05, 99.96, 12345.6], [0.0, 45_000.0, 400_000.0]
    ):
        rates = Rates(loss, top1, 100.0, speed, 100.0)
        shown = shown_bar(step_report(epoch, num_epochs, rates, left), columns)
        assert len(shown) < columns
        bar = re.search(r"\|(.*)\|", shown)[1]
        assert len(bar) >= MIN_BAR
        assert f"| loss {loss:.3f}" in shown


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0:00:00"), (59.6, "0:01:00"), (3725.0, "1:02:05"), (360_000.0, "100:00:00")],
)
def test_a_duration_is_in_hours_minutes_and_seconds(seconds: float, expected: str):
    assert duration(seconds) == expected
