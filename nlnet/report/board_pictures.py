"""Pictures of an evaluation for TensorBoard, drawn with Pillow: (H, W, 3) uint8 arrays."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nlnet.report.classes import most_confused

NUMBERED, NAMED = 20, 60  # classes: cells up to this count have numbers, rows and columns names
LARGE_CELL, SMALL_CELL = 28, 14  # pixels of a cell with and without a number
PAIRS, LINE, BAR = 20, 18, 160  # of the list of the most confused pairs: lines, their sizes
LONGEST = 26  # characters of a name
WHITE, BLACK, DARK = (255, 255, 255), (0, 0, 0), (8, 48, 107)
SIDE = 112  # pixels of a frame of a strip


def confusion_picture(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The confusion matrix (K, K) of up to NAMED classes; the most confused pairs of more.

    Rows are labels, columns are predictions. The cells are the square at the lower right; the
    color of a cell goes from white, no video, to DARK, all videos of the label.
    """
    if len(names) > NAMED:
        return _pairs_picture(matrix, names)
    cell = LARGE_CELL if len(names) <= NUMBERED else SMALL_CELL
    font = ImageFont.load_default(12 if cell == LARGE_CELL else 10)
    texts = [_short(name) for name in names]
    margin = round(max(font.getlength(text) for text in texts)) + 8
    top, side = margin + LINE, cell * len(names)
    title = "rows: label, columns: prediction"
    width = max(margin + side, round(font.getlength(title)) + 8)
    picture = Image.new("RGB", (width, top + side), WHITE)
    draw, left = ImageDraw.Draw(picture), width - side
    draw.text((4, 2), title, BLACK, font=font)
    for k, text in enumerate(texts):
        middle = top + cell * k + cell // 2
        draw.text((left - 4, middle), text, BLACK, font=font, anchor="rm")
        upright = Image.new("RGB", (margin, cell), WHITE)
        ImageDraw.Draw(upright).text((4, cell // 2), text, BLACK, font=font, anchor="lm")
        picture.paste(upright.transpose(Image.Transpose.ROTATE_90), (left + cell * k, LINE))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for (row, column), share in np.ndenumerate(shares):
        x, y = left + cell * column, top + cell * row
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), _shade(share))
        if cell == LARGE_CELL and matrix[row, column]:
            at, ink = (x + cell // 2, y + cell // 2), WHITE if share > 0.5 else BLACK
            draw.text(at, str(matrix[row, column]), ink, font=font, anchor="mm")
    return np.asarray(picture)


def _pairs_picture(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The most confused pairs, one in a line, with bars for their shares of the label's videos."""
    font = ImageFont.load_default(12)
    pairs = most_confused(matrix, PAIRS)
    lines = [
        f"{_short(names[pair.label])}, taken for {_short(names[pair.prediction])}: {pair.videos}"
        for pair in pairs
    ]
    title = "the most confused pairs: videos, share of the label's videos"
    width = round(max(font.getlength(line) for line in [title, *lines])) + 16
    picture = Image.new("RGB", (width + BAR, LINE * (1 + len(lines)) + 4), WHITE)
    draw = ImageDraw.Draw(picture)
    draw.text((4, 2), title, BLACK, font=font)
    for k, (line, pair) in enumerate(zip(lines, pairs, strict=True), 1):
        draw.text((4, LINE * k + 2), line, BLACK, font=font)
        end = width + round(pair.share * (BAR - 1))
        draw.rectangle((width, LINE * k + 2, end, LINE * (k + 1) - 3), DARK)
    return np.asarray(picture)


def strip_picture(frames: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Frames (n, H, W, 3) side by side below lines of text."""
    font = ImageFont.load_default(12)
    height, width = frames.shape[1:3]
    scale = SIDE / min(height, width)
    size = round(width * scale), round(height * scale)
    row = [Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR) for frame in frames]
    longest = round(max(font.getlength(line) for line in lines)) + 8
    top = LINE * len(lines)
    picture = Image.new("RGB", (max(size[0] * len(row), longest), top + size[1]), WHITE)
    draw = ImageDraw.Draw(picture)
    for k, line in enumerate(lines):
        draw.text((4, LINE * k + 2), line, BLACK, font=font)
    for k, frame in enumerate(row):
        picture.paste(frame, (size[0] * k, top))
    return np.asarray(picture)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _shade(share: float) -> tuple[int, int, int]:
    r, g, b = (
        round(white + share * (dark - white)) for white, dark in zip(WHITE, DARK, strict=True)
    )
    return r, g, b
