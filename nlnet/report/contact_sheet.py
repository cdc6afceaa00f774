"""A picture of clips: one row of frames for each, with a line of text above."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nlnet.files import cannot_write, write_atomic
from nlnet.report.statistics import spread_ends

MOST_FRAMES = 8  # of a clip; longer clips show evenly spaced frames
SIDES = (64, 160)  # pixels of a frame in the picture, the smallest and the largest
TEXT_SIZE = 14
MARGIN = 8


class SheetRow(NamedTuple):
    """One clip: uint8 (3, T, H, W), and its text."""

    video: Tensor
    text: str


def write_contact_sheet(path: Path, rows: Sequence[SheetRow]) -> None:
    """Write a PNG of one or more clips. Raises UserError if the file cannot be written."""
    strips = [_strip(row.video) for row in rows]
    line = TEXT_SIZE + 6
    font = ImageFont.load_default(TEXT_SIZE)
    width = max([strip.width for strip in strips] + [_text_width(row.text, font) for row in rows])
    height = sum(strip.height + line + MARGIN for strip in strips)
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + MARGIN), "white")
    draw, y = ImageDraw.Draw(sheet), MARGIN
    for row, strip in zip(rows, strips, strict=True):
        draw.text((MARGIN, y), _printable(row.text), fill="black", font=font)
        sheet.paste(strip, (MARGIN, y + line))
        y += line + strip.height + MARGIN
    data = io.BytesIO()
    sheet.save(data, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    write_atomic(path, data.getvalue())


def _strip(video: Tensor) -> Image.Image:
    """Frames side by side, two pixels apart."""
    num_frames, height, width = video.shape[1:]
    shown = spread_ends(num_frames, MOST_FRAMES)
    side = min(max(height, SIDES[0]), SIDES[1])
    size = (max(round(width * side / height), 1), side)
    how = Image.Resampling.NEAREST if height < side else Image.Resampling.BILINEAR
    strip = Image.new("RGB", (len(shown) * (size[0] + 2) - 2, side), "white")
    for k, frame in enumerate(shown):
        pixels = Image.fromarray(video[:, frame].permute(1, 2, 0).contiguous().numpy())
        strip.paste(pixels.resize(size, how), (k * (size[0] + 2), 0))
    return strip


def _text_width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(font.getlength(_printable(text)))


def _printable(text: str) -> str:
    """The text with bytes of file names that are not UTF-8 as escapes."""
    return text.encode(errors="backslashreplace").decode()
