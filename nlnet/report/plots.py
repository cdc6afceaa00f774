"""Plots of a report as inline SVG.

Text stays text, so that the page's font applies and the numbers can be selected.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from nlnet.report.statistics import Calibration, ViewPoint

COLORS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b7791f", "#4a5568")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nlnet",  # the same identifiers each time
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.axisbelow": True,
    "axes.edgecolor": "#718096",
    "axes.prop_cycle": cycler(color=COLORS),
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
MAX_CLASSES = 60  # of a confusion matrix with class names


def views_plot(points: Mapping[str, Sequence[ViewPoint]], metric: str) -> str:
    """Plot the metric in percent against the number of views, one line for each run and crops."""
    with _figure(6.4, 3.6) as (figure, axes):
        for color, (name, of_run) in zip(_colors(len(points)), points.items(), strict=True):
            crops = sorted({point.crops for point in of_run})
            for count in crops:
                line = [point for point in of_run if point.crops == count]
                label = f"{count} crop{'s' if count > 1 else ''}"
                axes.plot(
                    [point.clips for point in line],
                    [100 * point.value for point in line],
                    marker="o",
                    markersize=4,
                    color=color,
                    linestyle="-" if count == crops[-1] else "--",
                    label=f"{name}, {label}" if len(points) > 1 else label,
                )
        axes.set_xlabel("clips in time")
        axes.set_ylabel(f"{metric} (%)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        clips = {point.clips for of_run in points.values() for point in of_run}
        if len(clips) == 1:  # the locator would mark fractions
            axes.set_xticks(sorted(clips))
        axes.legend(frameon=False)
        return _svg(figure)


def calibration_plot(calibrations: Mapping[str, Calibration]) -> str:
    """Plot the accuracy in each bin of confidence, and how many predictions a bin has."""
    with _figure(6.4, 4.4, rows=(3, 1)) as (figure, axes, below):
        axes.plot([0, 1], [0, 1], color="#a0aec0", linestyle=":", label="perfect calibration")
        for color, (name, each) in zip(
            _colors(len(calibrations)), calibrations.items(), strict=True
        ):
            filled = each.counts > 0
            axes.plot(
                each.confidence[filled],
                each.accuracy[filled],
                marker="o",
                markersize=4,
                color=color,
                label=name,
            )
            below.stairs(each.counts, each.edges, color=color, fill=len(calibrations) == 1)
        axes.set_ylabel("share of right ones")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.tick_params(labelbottom=False)
        axes.legend(frameon=False, loc="upper left")
        below.set_xlim(0, 1)
        below.set_xlabel("confidence")
        below.set_ylabel("count")
        return _svg(figure)


def confusion_plot(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Plot a confusion matrix in percent of each label; small ones with class names and numbers."""
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = 100 * matrix / totals
    small, named = len(names) <= 20, len(names) <= MAX_CLASSES
    size = min(2.6 + 0.42 * len(names), 9.0) if named else 7.0
    with _figure(size + 0.9, size) as (figure, axes):
        axes.grid(False)
        mesh = axes.pcolormesh(
            shares, cmap="Blues", vmin=0, vmax=100, edgecolors="face", rasterized=not named
        )
        axes.invert_yaxis()
        axes.set_aspect("equal")
        if named:
            places, size = np.arange(len(names)) + 0.5, 9 if small else 6
            short = [name if len(name) <= 26 else f"{name[:25]}…" for name in names]
            axes.set_xticks(
                places, short, rotation=60, ha="right", rotation_mode="anchor", fontsize=size
            )
            axes.set_yticks(places, short, fontsize=size)
        if small:
            for row, column in np.argwhere(matrix > 0):
                color = "white" if shares[row, column] > 55 else "#1a202c"
                text = str(matrix[row, column])
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=color)
        axes.set_xlabel("prediction")
        axes.set_ylabel("label")
        figure.colorbar(mesh, ax=axes, shrink=0.7, label="% of the label's videos")
        return _svg(figure)


def learning_plot(curves: Mapping[str, Sequence[tuple[int, float]]], unit: str) -> str:
    """Plot values (epoch, value) against the epoch, one line for each name."""
    with _figure(6.4, 3.6) as (figure, axes):
        for color, (name, points) in zip(_colors(len(curves)), curves.items(), strict=True):
            x, y = [point[0] for point in points], [point[1] for point in points]
            axes.plot(
                x, y, color=color, label=name, marker="o" if len(x) < 30 else "", markersize=3
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        return _svg(figure)


@contextmanager
def _figure(width: float, height: float, rows: tuple[int, ...] = (1,)) -> Iterator[tuple[Any, ...]]:
    """A figure of this size in inches, and its axes from top to bottom."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes: list[Axes] = list(
            figure.subplots(len(rows), squeeze=False, height_ratios=rows).ravel()
        )
        yield figure, *axes


def _colors(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element that shrinks with the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=NO_METADATA, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
