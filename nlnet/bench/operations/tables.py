"""Tables and a picture of what bench=ops measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nlnet.bench.naive import NAIVE
from nlnet.bench.operations.calls import FORMS
from nlnet.bench.operations.shapes import HEADS, Shape
from nlnet.bench.picture import Curve, log_log
from nlnet.cli.sweep import markdown_table


@dataclass(frozen=True)
class Row:
    """What was measured at one shape: function -> form -> seconds or bytes."""

    shape: Shape
    values: Mapping[str, Mapping[str, float]]

    def numbers(self) -> dict[str, object]:
        return {"shape": str(self.shape), **self.values}

    def growth_numbers(self) -> dict[str, object]:
        return {"N": self.shape.queries, "M": self.shape.keys, **self.values}


def ratio_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """How many times as long as our form the peer's form takes."""
    cells = []
    for row in rows:
        ratios = [row.values[name]["naive"] / row.values[name]["ours"] for name in names]
        cells.append([str(row.shape), *(f"{ratio:.2f}" for ratio in ratios)])
    return markdown_table(["shape", *names], cells)


def underflow_table(rows: Sequence[Row]) -> str:
    """Milliseconds of the Gaussian where denormals are kept and flushed, and the ratio of ours to
    the embedded Gaussian, whose weights do not underflow and whose d is half as large."""
    header = ["shape"]
    cells = [[str(row.shape)] for row in rows]
    for name in ("kept", "flushed"):
        header += [f"naive, {name}", f"ours, {name}", "ours / embedded"]
        for row, cell in zip(rows, cells, strict=True):
            times = row.values[name]
            cell += [_milliseconds(times["naive"]), _milliseconds(times["ours"])]
            cell.append(f"{times['ours'] / times['embedded']:.2f}")
    return markdown_table(header, cells)


def heads_table(rows: Sequence[Row]) -> str:
    """How many times as long as the block with one head a block takes: function x heads."""
    columns = [(name, heads) for name in NAIVE for heads in HEADS[1:]]
    cells = [
        [
            str(row.shape),
            *(f"{row.values[name][str(h)] / row.values[name]['1']:.2f}" for name, h in columns),
        ]
        for row in rows
    ]
    return markdown_table(["shape", *(f"{name}, {heads} heads" for name, heads in columns)], cells)


def memory_table(rows: Sequence[Row]) -> str:
    columns = [
        (name, form)
        for name in NAIVE
        for form in FORMS
        if any(form in row.values[name] for row in rows)
    ]
    cells = [
        [str(row.shape), *(_megabytes(row.values[name].get(form)) for name, form in columns)]
        for row in rows
    ]
    return markdown_table(["shape", *(f"{name}, {form}" for name, form in columns)], cells)


def growth_table(rows: Sequence[Row]) -> str:
    columns = [(name, form) for name in NAIVE for form in ("ours", "naive")]
    cells = [
        [
            f"{row.shape.queries:,}",
            f"{row.shape.keys:,}",
            *(_milliseconds(row.values[name].get(form)) for name, form in columns),
        ]
        for row in rows
    ]
    return markdown_table(["N", "M", *(f"{name}, {form}" for name, form in columns)], cells)


def growth_picture(rows: Sequence[Row]) -> str:
    """Time over N as SVG text, with a curve for each function in each form."""
    curves = [
        Curve(
            f"{name}, {form}",
            [
                (row.shape.queries, row.values[name][form])
                for row in rows
                if form in row.values[name]
            ],
            color=color,
            dashed=form == "naive",
        )
        for color, name in enumerate(NAIVE)
        for form in ("ours", "naive")
    ]
    return log_log(curves, "positions N (keys N / 4)", "seconds, forward and backward")


def _megabytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.0f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:,.1f}"
