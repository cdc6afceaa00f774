"""A picture of the probabilities of classes over the time of a video."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from nlnet.recognizer.prediction import WindowPrediction, boundaries
from nlnet.report.plots import COLORS, STYLE

OTHER = "#a0aec0"  # color of the classes that have no color of their own
LONG = 120.0  # seconds; the axis of a longer video is labeled in minutes and seconds
TICKS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)  # seconds between labels
MAX_TICKS = 8


def class_colors(parts: Sequence[WindowPrediction], names: Sequence[str]) -> dict[str, str]:
    """A color for each of the classes that are shown: the first has the highest probability.

    Classes that are the best in a window come first. There are at most as many as COLORS.
    """
    best = {part.top[0].name for part in parts}
    highest = np.max([part.probabilities for part in parts], axis=0)
    order = sorted(range(len(names)), key=lambda k: (names[k] not in best, -highest[k], k))
    return {names[k]: color for k, color in zip(order, COLORS, strict=False)}


def timeline(parts: Sequence[WindowPrediction], names: Sequence[str], title: str) -> bytes:
    """Plot the probabilities at the center of each window, and the best class, as PNG."""
    colors = class_colors(parts, names)
    probabilities = 100 * np.stack([part.probabilities for part in parts])
    edges = boundaries(parts)
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes, strip = figure.subplots(2, sharex=True, height_ratios=(12, 1))
        for name, color in colors.items():
            values = probabilities[:, list(names).index(name)]
            axes.stairs(
                values,
                edges,
                baseline=None,
                color=color,
                linewidth=1.6 if len(parts) < 500 else 0.6,
                label=short(name),
            )
        for part, left, right in zip(parts, edges[:-1], edges[1:], strict=True):
            color = colors.get(part.top[0].name, OTHER)
            strip.axvspan(left, right, color=color, linewidth=0)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylabel("probability (%)")
        axes.set_ylim(-2, 102)
        axes.set_xlim(edges[0], edges[-1])
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        strip.set_yticks([0.5], ["best"])
        strip.tick_params(axis="y", length=0)
        strip.grid(False)
        strip.spines["left"].set_visible(False)
        if edges[-1] > LONG:
            distance = next((d for d in TICKS if d * MAX_TICKS >= edges[-1]), TICKS[-1])
            strip.xaxis.set_major_locator(MultipleLocator(distance))
            strip.xaxis.set_major_formatter(FuncFormatter(lambda time, _: minutes(time)))
            strip.set_xlabel("time (minutes:seconds)")
        else:
            strip.set_xlabel("time (s)")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def short(name: str) -> str:
    """A class name that is not longer than a legend is wide."""
    return name if len(name) <= 30 else f"{name[:29]}…"


def minutes(time: float) -> str:
    """Seconds as minutes:seconds, with hours where there are some."""
    hours, rest = divmod(round(time), 3600)
    text = f"{rest // 60}:{rest % 60:02d}"
    return f"{hours}:{text:0>5}" if hours else text
