"""The rows of bench=gpu: as a table, and as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

from nlnet.bench.gpu.measure import Measurement
from nlnet.cli.sweep import markdown_table


@dataclass(frozen=True)
class GpuRow:
    """One contender. Ratios are against the first one of its group."""

    part: str  # training, evaluation or block
    subject: str  # the network, or the size of a block's map
    contender: str
    precision: str
    batch: int
    ms: float | None = None  # of a step
    clips_per_s: float | None = None
    mfu: float | None = None  # share of the data sheet's rate
    peak_mb: float | None = None
    speed: float | None = None  # the peer's time / time
    memory: float | None = None  # peak / the peer's peak
    reason: str = ""  # why there are no figures


def filled_row(
    row: GpuRow, measured: Measurement, *, peer: GpuRow | None, peak_share: float | None = None
) -> GpuRow:
    """A row with what was measured.

    Args:
        peer: the first row of the group; None if this is the first one
        peak_share: seconds that a clip would take at the rate of the data sheet
    """
    if measured.seconds is None:
        return replace(row, reason=measured.reason)
    rate = row.batch / measured.seconds
    row = replace(
        row,
        ms=1e3 * measured.seconds,
        clips_per_s=rate,
        mfu=None if peak_share is None else rate * peak_share,
        peak_mb=measured.peak_mb,
    )
    base = peer or row
    return replace(row, speed=quotient(base.ms, row.ms), memory=quotient(row.peak_mb, base.peak_mb))


def quotient(a: float | None, b: float | None) -> float | None:
    """a / b; None if one of them is unknown or b is 0."""
    return a / b if a is not None and b else None


def csv_text(rows: Sequence[GpuRow]) -> str:
    """The rows with a header; a cell is empty where there is no figure."""
    file = io.StringIO()
    writer = csv.DictWriter(file, [field.name for field in fields(GpuRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return file.getvalue()


def gpu_table(rows: Sequence[GpuRow]) -> str:
    """The rows of one part, in the order in which they were measured."""
    header = ["", "batch", "ms", "clips/s", "MFU", "peak MB", "x peer", "of peer's memory"]
    cells = [
        [
            f"{row.subject}: {row.contender}",
            str(row.batch),
            row.reason or _number(row.ms, ",.2f"),
            _number(row.clips_per_s, ",.0f"),
            _number(row.mfu, ".1%"),
            _number(row.peak_mb, ",.0f"),
            _number(row.speed, ".2f"),
            _number(row.memory, ".2f"),
        ]
        for row in rows
    ]
    return markdown_table(header, cells)


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
