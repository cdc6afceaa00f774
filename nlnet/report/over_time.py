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
MARK = 255  # of the current time on the strip: white


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
    with open_stream(video) as stream, VideoWriter(path, stream.rate) as writer:
        strip, panel, shown = np.empty(0), np.empty(0), -1
        for frame in stream:
            picture = _scaled(frame.pixels())
            width = picture.shape[1]
            if shown < 0:
                strip = _strip(parts, edges, colors, width)
            number = int(np.searchsorted(edges[1:-1], frame.time, side="right"))
            if number != shown:
                panel, shown = _panel(parts[number], colors, width), number
            marked = strip.copy()
            place = min(round(frame.time / edges[-1] * width), width - 2)
            marked[:, place : place + 2] = MARK
            writer.write(np.concatenate([picture, marked, panel]), frame.time)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """The frame with a width from SHORTEST to LONGEST and even sides."""
    height, width = pixels.shape[:2]
    new_width = min(max(width, SHORTEST), LONGEST) // 2 * 2
    new_height = max(round(height * new_width / width / 2) * 2, 2)
    if (new_height, new_width) == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((new_width, new_height), Image.Resampling.BILINEAR))


def _strip(
    parts: Sequence[WindowPrediction], edges: np.ndarray, colors: dict[str, str], width: int
) -> np.ndarray:
    """The best class over time as colors, (STRIP, width, 3)."""
    strip = Image.new("RGB", (width, STRIP), TRACK)
    draw = ImageDraw.Draw(strip)
    places = np.round(edges / edges[-1] * width).astype(int).tolist()
    for part, left, right in zip(parts, places[:-1], places[1:], strict=True):
        color = colors.get(part.top[0].name, OTHER)
        draw.rectangle((left, 0, max(right - 1, left), STRIP), fill=color)
    return np.array(strip)


def _panel(part: WindowPrediction, colors: dict[str, str], width: int) -> np.ndarray:
    """The most probable classes as bars, (height, width, 3) with an even height."""
    rows = part.top[:ROWS]
    canvas = Image.new("RGB", (width, 2 * MARGIN + len(rows) * ROW), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=15)
    percent = round(draw.textlength("100.0 %", font))
    left, right = width * 11 // 20, width - percent - 2 * MARGIN
    for i, (name, probability) in enumerate(rows):
        top = MARGIN + i * ROW
        middle = top + ROW // 2
        draw.text((MARGIN, middle), _fitting(draw, name, left - 2 * MARGIN, font), TEXT, font, "lm")
        draw.rectangle((left, top + 5, right, top + ROW - 6), fill=TRACK)
        end = left + round(probability * (right - left))
        draw.rectangle((left, top + 5, end, top + ROW - 6), fill=colors.get(name, OTHER))
        draw.text((width - MARGIN, middle), f"{100 * probability:.1f} %", TEXT, font, "rm")
    return np.array(canvas)


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
