"""Curves on logarithmic axes as SVG text, so that nlnet does not depend on a plotting library."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, floor, log10

COLORS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")
WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 220, 20, 50  # margins


@dataclass
class Curve:
    """A named line through points."""

    name: str
    points: list[tuple[float, float]]  # (x, y), both positive
    color: int = 0  # index into COLORS, which repeat
    dashed: bool = False


def log_log(curves: list[Curve], x_label: str, y_label: str) -> str:
    """Return a picture of the curves with grid lines at powers of 10 and a legend at the right."""
    x = scale([p[0] for c in curves for p in c.points], LEFT, WIDTH - RIGHT)
    y = scale([p[1] for c in curves for p in c.points], HEIGHT - BOTTOM, TOP)
    parts = [*_grid(x, y), *labels(x_label, y_label)]
    for i, curve in enumerate(curves):
        style = f'stroke="{COLORS[curve.color % len(COLORS)]}" fill="none" stroke-width="2"'
        if curve.dashed:
            style += ' stroke-dasharray="5 4"'
        path = " ".join(f"{x.place(a):.1f},{y.place(b):.1f}" for a, b in curve.points)
        parts.append(f'<polyline points="{path}" {style}/>')
        start, line = WIDTH - RIGHT + 14, TOP + 10 + 18 * i
        parts.append(f'<line x1="{start}" y1="{line}" x2="{start + 26}" y2="{line}" {style}/>')
        parts.append(f'<text x="{start + 32}" y="{line + 4}">{curve.name}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


@dataclass
class _Axis:
    """How one axis maps values to pixels."""

    place: Callable[[float], float]  # value -> pixel
    decades: list[int]  # exponents of 10


def scale(values: Iterable[float], first: float, last: float) -> _Axis:
    """Return an axis of whole powers of 10 around the values, from pixel `first` to `last`."""
    logs = [log10(value) for value in values]
    low, high = floor(min(logs)), max(ceil(max(logs)), floor(min(logs)) + 1)
    step = (last - first) / (high - low)
    return _Axis(lambda value: first + step * (log10(value) - low), list(range(low, high + 1)))


def _grid(x: _Axis, y: _Axis) -> list[str]:
    """Return the grid lines and their numbers."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines = []
    for exponent in x.decades:
        a = x.place(10.0**exponent)
        lines.append(f'<path d="M{a:.1f} {TOP}V{bottom}" stroke="#ddd"/>')
        lines.append(
            f'<text x="{a:.1f}" y="{bottom + 18}" text-anchor="middle">1e{exponent}</text>'
        )
    for exponent in y.decades:
        b = y.place(10.0**exponent)
        lines.append(f'<path d="M{LEFT} {b:.1f}H{right}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{b + 4:.1f}" text-anchor="end">1e{exponent}</text>')
    return lines


def labels(x_label: str, y_label: str) -> list[str]:
    """Return the labels of both axes."""
    middle = (TOP + HEIGHT - BOTTOM) / 2
    across = (LEFT + WIDTH - RIGHT) / 2
    return [
        f'<text x="{across}" y="{HEIGHT - 10}" text-anchor="middle">{x_label}</text>',
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">'
        f"{y_label}</text>",
    ]
