"""The table of bench=data."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nlnet.bench.reading.plan import RESIZE_SHARE, TRAINING_SHARE, ReadingRow
from nlnet.bench.reading.rounds import Measured, Spread, ratio, spread_of
from nlnet.bench.reading.training import EndToEnd
from nlnet.cli.sweep import markdown_table

OURS, PEER = ("nlnet", "original"), ("pytorchvideo", "original")  # a reader, and its files
PREPARED, SHARDS = ("nlnet", "prepared"), ("nlnet", "shards")

Results = Mapping[tuple[str, str], Measured]  # by reader and files


class Line(NamedTuple):
    """A line of the table: a time, and a ratio with the figure to reach."""

    work: str
    workers: str
    reader: str
    milliseconds: float | None  # CPU time of a sample
    rate: float | None  # samples or clips a second
    ratio: Spread | None
    wanted: str = ""
    against: str = ""  # what the ratio compares with


def reading_lines(row: ReadingRow, results: Results) -> list[Line]:
    """Each reader's time, and its ratio to the peer on the original files."""
    wanted = {OURS: row.x_peer, PREPARED: row.prepared_x_peer}
    lines = []
    for key, measured in results.items():
        figure = wanted.get(key)
        lines.append(
            Line(
                row.name,
                str(row.workers),
                ", ".join(key),
                1e3 * spread_of(measured.cpu).middle,
                1 / spread_of(measured.wall).middle,
                ratio(results[PEER], measured),
                "" if figure is None else f">= {figure:g}",
                "x pytorchvideo",
            )
        )
    if row.prepared_x_ours is not None and PREPARED in results:
        share = ratio(results[OURS], results[PREPARED])
        wanted_share = f">= {row.prepared_x_ours:g}"
        against = "x nlnet, original"
        name = ", ".join(PREPARED)
        lines.append(
            Line(row.name, str(row.workers), name, None, None, share, wanted_share, against)
        )
    return lines


def resize_line(num_frames: int, crop_size: int, seconds: float, share: Spread) -> Line:
    """The transform alone: its share of float-then-resize."""
    name = f"{num_frames} frames to {crop_size}, transform"
    milliseconds = 1e3 * seconds * share.middle
    wanted = f"<= {RESIZE_SHARE:g}"
    return Line(name, "0", "nlnet", milliseconds, None, share, wanted, "of float, then resize")


def training_line(result: EndToEnd, files: str) -> Line:
    """The rate of training from files, and its share of the rate from memory."""
    return Line(
        f"training {result.network}, {result.device}, batch {result.batch}",
        str(result.workers),
        f"nlnet, {files}",
        None,
        result.files,
        result.share,
        f">= {TRAINING_SHARE:g}",
        "of batches in memory",
    )


def reading_table(lines: Sequence[Line]) -> str:
    """All lines as one table."""
    header = ["work", "workers", "reader, files", "CPU ms", "per s", "ratio", "rounds", "wanted"]
    return markdown_table([*header, "compared with"], [_cells(line) for line in lines])


def _cells(line: Line) -> list[str]:
    ratios = ["", ""]
    if line.ratio is not None:
        ratios = [
            f"{line.ratio.middle:.2f}",
            f"{line.ratio.low:.2f} to {line.ratio.high:.2f}",
        ]
    milliseconds = "" if line.milliseconds is None else f"{line.milliseconds:.3g}"
    rate = "" if line.rate is None else f"{line.rate:.3g}"
    first = [line.work, line.workers, line.reader, milliseconds, rate]
    return [*first, *ratios, line.wanted, line.against]
