"""Horizontal bars as SVG text."""

from collections.abc import Sequence
from html import escape

from nlnet.bench.picture import COLORS

BAR, GAP, LEFT_OF_BARS, LONGEST_BAR = 16, 14, 330, 360  # pixels


def bars(groups: Sequence[tuple[str, Sequence[tuple[str, float]]]], unit: str) -> str:
    """A picture of named values in named groups; all bars have the same scale from 0.

    The n-th bar of each group has the n-th color.
    """
    values = [value for _, group in groups for _, value in group]
    scale = LONGEST_BAR / (max(values, default=0.0) or 1.0)
    parts, y = [], GAP
    for title, group in groups:
        parts.append(f'<text x="10" y="{y + 12}" font-weight="bold">{escape(title)}</text>')
        y += BAR + 4
        for i, (name, value) in enumerate(group):
            end = LEFT_OF_BARS + value * scale
            parts += [
                f'<text x="{LEFT_OF_BARS - 8}" y="{y + 12}" text-anchor="end">'
                f"{escape(name)}</text>",
                f'<rect x="{LEFT_OF_BARS}" y="{y}" width="{value * scale:.1f}" height="{BAR - 2}" '
                f'fill="{COLORS[i % len(COLORS)]}"/>',
                f'<text x="{end + 6:.1f}" y="{y + 12}">{value:,.3g}</text>',
            ]
            y += BAR
        y += GAP
    parts.append(f'<text x="{LEFT_OF_BARS}" y="{y + 12}">{escape(unit)}</text>')
    width, height = LEFT_OF_BARS + LONGEST_BAR + 80, y + 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])
