"""The classes of a video over time, drawn on its frames: an annotated MP4 file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nlnet.data.encoding import VideoWriter
from nlnet.recognizer.inputs import Video, open_stream
from nlnet.recognizer.prediction import WindowPrediction, boundaries
from nlnet.report.timeline import OTHER, class_colors

SHORTEST, LONGEST = 320, 1280  # pixels of the width of the annotated video
ROWS = 3  # classes below the picture
ROW, MARGIN, STRIP = 24, 8, 10  # pixels
BACKGROUND, TEXT, TRACK = "#1a202c", "#f7fafc", "#2d3748"


def write_annotated(
    video: Video, parts: Sequence[WindowPrediction], path: Path, names: Sequence[str]
) -> None:
    """Write the video with the most probable classes of the window around each frame.

    Below the picture are the classes with bars, and a strip of the whole video in the color of
    the best class, with a mark at the frame. The frames are read in order, one at a time.

    Raises UserError if the video cannot be read or the file cannot be written.
    """
    colors = class_colors(parts, names)
    edges = boundaries(parts)
    font = ImageFont.load_default(size=15)
    with open_stream(video) as stream, VideoWriter(path, stream.rate) as writer:
        strip: Image.Image | None = None
        for frame in stream:
            picture = _scaled(frame.pixels())
            if strip is None:
                strip = _strip(parts, edges, colors, picture.width)
            part = parts[int(np.searchsorted(edges[1:-1], frame.time, side="right"))]
            canvas = _with_bars(picture, part, colors, font)
            place = round(frame.time / edges[-1] * picture.width)
            canvas.paste(strip, (0, picture.height))
            mark = (place - 1, picture.height, place + 1, picture.height + STRIP - 1)
            ImageDraw.Draw(canvas).rectangle(mark, fill=TEXT)
            writer.write(np.asarray(canvas), frame.time)


def _scaled(pixels: np.ndarray) -> Image.Image:
    """The frame with a width from SHORTEST to LONGEST and even sides."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    width = min(max(image.width, SHORTEST), LONGEST) // 2 * 2
    height = max(round(image.height * width / image.width / 2) * 2, 2)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _strip(
    parts: Sequence[WindowPrediction], edges: np.ndarray, colors: dict[str, str], width: int
) -> Image.Image:
    """The best class over time as colors."""
    strip = Image.new("RGB", (width, STRIP), TRACK)
    draw = ImageDraw.Draw(strip)
    places = np.round(edges / edges[-1] * width).astype(int).tolist()
    for part, left, right in zip(parts, places[:-1], places[1:], strict=True):
        color = colors.get(part.top[0].name, OTHER)
        draw.rectangle((left, 0, max(right - 1, left), STRIP), fill=color)
    return strip


def _with_bars(
    picture: Image.Image,
    part: WindowPrediction,
    colors: dict[str, str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> Image.Image:
    """The picture on a canvas that has space for the strip, with the classes below it."""
    width, rows = picture.width, part.top[:ROWS]
    height = picture.height + STRIP + 2 * MARGIN + len(rows) * ROW
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    percent = round(draw.textlength("100.0 %", font))
    left, right = width * 2 // 5, width - percent - 2 * MARGIN
    top = picture.height + STRIP + MARGIN
    for name, probability in rows:
        middle = top + ROW // 2
        draw.text((MARGIN, middle), _fitting(draw, name, left - 2 * MARGIN, font), TEXT, font, "lm")
        draw.rectangle((left, top + 5, right, top + ROW - 6), fill=TRACK)
        end = left + round(probability * (right - left))
        draw.rectangle((left, top + 5, end, top + ROW - 6), fill=colors.get(name, OTHER))
        draw.text((width - MARGIN, middle), f"{100 * probability:.1f} %", TEXT, font, "rm")
        top += ROW
    return canvas


def _fitting(
    draw: ImageDraw.ImageDraw,
    name: str,
    width: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> str:
    """The name, shortened so that it is not wider than `width` pixels."""
    if draw.textlength(name, font) <= width:
        return name
    while name and draw.textlength(f"{name}...", font) > width:
        name = name[:-1]
    return f"{name}..."
