"""The lines that show a run: one long line in log.txt, short rows on a terminal."""

from collections.abc import Mapping, Sequence

from nlnet.checkpoint import EpochRecord
from nlnet.runs.record import EpochReport, Rates, StepReport, main_first

WIDTH = 79  # of a row; some terminals of 80 columns break a row of 80 characters
MIN_BAR = 10  # cells of the progress bar


def epoch_line(report: EpochReport) -> str:
    """Format an epoch as one line with all numbers."""
    record = report.record
    head = [_epoch(record.epoch, report.num_epochs), duration(record.seconds), *_speed(record)]
    groups = [head]
    groups += [_labeled("train", record.train), _validation(record)]
    if report.seconds_left is not None:
        groups.append([_left(report.seconds_left)])
    return "  |  ".join("  ".join(group) for group in groups if group)


def epoch_rows(report: EpochReport) -> str:
    """Format an epoch as two rows for a terminal: validation in the first, training in the second.

    Numbers that do not fit are left out, the least important first. They are in `epoch_line`. An
    epoch without validation has one row.
    """
    record = report.record
    name = _epoch(record.epoch, report.num_epochs)
    train = _labeled("train", record.train)
    if report.seconds_left is not None:
        train.append(_left(report.seconds_left))
    train += _speed(record)
    if not record.val:
        return _row([name, *train])
    first = _row([name, *_validation(record)])
    second = _row(["   ", *train])
    return f"{first}\n{second}"


def step_line(report: StepReport) -> str:
    """Format a step as one line with all numbers."""
    return "  ".join(
        [
            _epoch(report.epoch, report.num_epochs),
            f"step {report.step}/{report.steps_per_epoch}",
            f"loss {report.running.loss:.4f}",
            f"top1 {report.running.top1:.2f}%",
            *_speed(report.running),
            f"lr {report.lr:.3g}",
            _left(report.seconds_left),
        ]
    )


def bar_format(report: StepReport, columns: int) -> str:
    """Format a step as a template of tqdm, whose `{bar}` gets the columns that the text leaves.

    The bar has MIN_BAR cells or more: numbers that do not fit are left out, the least important
    first.
    """
    percent = 100 * report.global_step / report.total_steps
    head = f"{_epoch(report.epoch, report.num_epochs)} {percent:3.0f}%|"
    running = report.running
    speed = running.clips_per_second
    numbers = [
        f"loss {running.loss:.3f}",
        f"top1 {running.top1:.1f}%",
        _left(report.seconds_left),
        f"{speed:.1f} clips/s" if speed < 100 else f"{speed:.0f} clips/s",
        f"data wait {running.data_wait:.0f}%",
    ]
    width = columns - 1  # tqdm leaves the last column empty
    return f"{head}{{bar}}| {_row(numbers, width - len(head) - MIN_BAR - len('| '))}"


def score_list(scores: Mapping[str, float]) -> list[str]:
    """Format a loss and percentages."""
    return [
        f"{name} {value:.4f}" if name == "loss" else f"{name} {value:.2f}%"
        for name, value in scores.items()
    ]


def duration(seconds: float) -> str:
    """Format a time as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _row(parts: Sequence[str], width: int = WIDTH) -> str:
    """Join parts, in their order, up to the first one that does not fit."""
    row = ""
    for part in parts:
        longer = f"{row}  {part}" if row else part
        if len(longer) > width:
            break
        row = longer
    return row


def _epoch(epoch: int, num_epochs: int) -> str:
    return f"epoch {epoch}/{num_epochs}"


def _left(seconds: float) -> str:
    return f"{duration(seconds)} left"


def _speed(rates: Rates | EpochRecord) -> list[str]:
    return [f"{rates.clips_per_second:.1f} clips/s", f"data wait {rates.data_wait:.0f}%"]


def _validation(record: EpochRecord) -> list[str]:
    """The metrics of the validation, the main one first."""
    return _labeled("val", main_first(record.val, record.main))


def _labeled(label: str, scores: Mapping[str, float]) -> list[str]:
    if not scores:
        return []
    first, *others = score_list(scores)
    return [f"{label}: {first}", *others]
