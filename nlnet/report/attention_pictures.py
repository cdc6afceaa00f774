"""Pictures of attention: heat maps over the frames of a clip, and arrows from a query.

The arrows are those of figure 3 of Wang et al. 2018: from the query to the positions with the
largest weights. The pictures are drawn with Pillow.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nlnet.recognizer.attention import AttentionMap, VideoAttention
from nlnet.report.statistics import spread_ends

SIDE = 160  # pixels of a frame in a picture, about
MAX_FRAMES = 8  # frames of a strip
ARROWS = 20
LEAST = 0.01  # an arrow has at least this share of the largest weight
GAP = 4
LINE = 18  # height of a line of text
FRAME_TIME = 300  # milliseconds of a frame of an animation
WHITE, BLACK, CYAN = (255, 255, 255), (0, 0, 0), (0, 255, 255)
# Weights from 0 to 1 -> colors; negative weights have colors of their own.
POSITIVE = ((40, 0, 60), (190, 20, 70), (255, 150, 0), (255, 255, 120))
NEGATIVE = ((0, 20, 60), (0, 60, 190), (0, 150, 255), (160, 240, 255))


def strip(attention: VideoAttention) -> Image.Image:
    """All maps of a clip below each other: for each the arrows, then a heat map of each term."""
    rows: list[Image.Image] = []
    for each in attention.maps:
        shown = shown_frames(each)
        pictures = [frame_picture(attention.frames[t]) for t in shown]
        if each.query is not None:
            rows.append(_text_row(f"{title(each)}: the largest weights", pictures))
            rows.append(_draw_arrows(_side_by_side(pictures), each, shown))
        for name, weights in each.terms.items():
            heat = heat_frames(attention.frames, each, weights)
            rows.append(_text_row(f"{title(each)}: {name}{_scale(weights)}", pictures))
            rows.append(_side_by_side([_numbered(heat[t], each, t) for t in shown]))
    width = max(row.width for row in rows)
    picture = Image.new("RGB", (width, sum(row.height + GAP for row in rows)), WHITE)
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height + GAP
    return picture


def attention_gif(attention: VideoAttention, each: AttentionMap) -> bytes:
    """A GIF of all frames: the clip, and beside it a heat map of each term."""
    heats = [heat_frames(attention.frames, each, weights) for weights in each.terms.values()]
    frames = []
    for t, frame in enumerate(attention.frames):
        columns = [
            _numbered(frame_picture(frame), each, t),
            *(_numbered(h[t], each, t) for h in heats),
        ]
        frames.append(_side_by_side(columns))
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_TIME, loop=0
    )
    return buffer.getvalue()


def heat_clip(frames: np.ndarray, each: AttentionMap, count: int) -> np.ndarray:
    """At most `count` frames with the weights in color, evenly spaced: (n, H, W, 3) uint8.

    The query's frame is one of them, and has the query as a cross.
    """
    shown = np.array(spread_ends(len(frames), count))
    if each.query is not None and each.query[0] not in shown:
        shown[np.abs(shown - each.query[0]).argmin()] = each.query[0]
    heat = heat_frames(frames, each, each.weights)
    return np.stack([np.asarray(_numbered(heat[t], each, t)) for t in shown.tolist()])


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def title(each: AttentionMap) -> str:
    """The layer and the query of a map."""
    if each.query is None:
        return each.layer
    t, y, x = each.query
    return f"{each.layer}, query t={t} y={y} x={x}"


def shown_frames(each: AttentionMap) -> list[int]:
    """At most MAX_FRAMES frames: evenly spaced, the query's and the most attended one included."""
    count = each.clip_sizes[0]
    if count <= MAX_FRAMES:
        return list(range(count))
    mass = np.abs(each.on_clip(each.weights)).sum(axis=(1, 2))
    needed = {int(mass.argmax())} | (set() if each.query is None else {each.query[0]})
    spread = spread_ends(count, MAX_FRAMES)
    for t in sorted(needed - set(spread)):  # takes the place of the nearest other frame
        nearest = min((s for s in spread if s not in needed), key=lambda s: abs(s - t))
        spread[spread.index(nearest)] = t
    return sorted(spread)


def heat_frames(frames: np.ndarray, each: AttentionMap, weights: np.ndarray) -> list[Image.Image]:
    """The frames (T, H, W, 3) in gray, with the weights in color.

    All frames have one scale: the largest absolute weight has the brightest color. Weights below 0
    are blue, others red and yellow.
    """
    values = each.on_clip(weights)
    values = values / max(np.abs(values).max(), np.finfo(float).tiny)
    pictures = []
    for frame, value in zip(frames, values, strict=True):
        picture = frame_picture(frame)
        size = picture.size
        gray = np.asarray(picture.convert("L"), float)[..., None].repeat(3, axis=2)
        large = np.asarray(
            Image.fromarray(value.astype(np.float32)).resize(size, Image.Resampling.NEAREST)
        )
        strength = np.abs(large)[..., None]
        color = np.where(
            large[..., None] < 0, _colors(NEGATIVE, strength), _colors(POSITIVE, strength)
        )
        opacity = 0.15 + 0.7 * np.sqrt(strength)
        mixed = (1 - opacity) * gray + opacity * color
        pictures.append(Image.fromarray(mixed.round().astype(np.uint8)))
    return pictures


def _colors(anchors: Sequence[tuple[int, int, int]], values: np.ndarray) -> np.ndarray:
    """Interpolate colors for values (H, W, 1) from 0 to 1: (H, W, 3)."""
    places = np.linspace(0, 1, len(anchors))
    channels = [
        np.interp(values[..., 0], places, channel) for channel in zip(*anchors, strict=True)
    ]
    return np.stack(channels, axis=-1)


def frame_picture(frame: np.ndarray) -> Image.Image:
    """A frame (H, W, 3) as a picture with a short side of SIDE."""
    height, width = frame.shape[:2]
    scale = SIDE / min(height, width)
    size = round(width * scale), round(height * scale)
    return Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)


def _numbered(picture: Image.Image, each: AttentionMap, t: int) -> Image.Image:
    """A copy with the number of the frame, and the query as a cross."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    draw.text((3, 2), str(t), WHITE, font=_font(12), stroke_width=1, stroke_fill=BLACK)
    if each.query is not None and each.query[0] == t:
        _cross(draw, *_place(each.query, each, picture.size))
    return picture


def _place(at: tuple[int, int, int], each: AttentionMap, size: tuple[int, int]) -> tuple[int, int]:
    """Where a position of the clip is in the picture of its frame, (x, y)."""
    _, height, width = each.clip_sizes
    return int((at[2] + 0.5) * size[0] / width), int((at[1] + 0.5) * size[1] / height)


def _cross(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    for color, width in ((BLACK, 5), (CYAN, 3)):
        draw.line((x - 7, y, x + 7, y), color, width)
        draw.line((x, y - 7, x, y + 7), color, width)


def _draw_arrows(row: Image.Image, each: AttentionMap, shown: list[int]) -> Image.Image:
    """Arrows from the query to the positions with the largest weights in the shown frames."""
    assert each.query is not None
    draw = ImageDraw.Draw(row)
    width = (row.width + GAP) // len(shown)
    size = width - GAP, row.height

    def place(at: tuple[int, int, int]) -> tuple[int, int]:
        x, y = _place(at, each, size)
        return shown.index(at[0]) * width + x, y

    start = place(each.query)
    strongest = each.strongest(ARROWS)
    largest = max(abs(weight) for _, weight in strongest) or 1.0
    for at, weight in reversed(strongest):  # the largest weight is drawn last
        nearest = min(shown, key=lambda t: abs(t - at[0]))
        share = abs(weight) / largest
        if share >= LEAST:
            anchors = NEGATIVE if weight < 0 else POSITIVE
            r, g, b = (
                _colors(anchors, np.array([[[0.35 + 0.65 * share]]]))[0, 0].round().astype(int)
            )
            _arrow(draw, start, place((nearest, at[1], at[2])), (r, g, b), 1 + round(2 * share))
    for k, t in enumerate(shown):
        draw.text(
            (k * width + 3, 2), str(t), WHITE, font=_font(12), stroke_width=1, stroke_fill=BLACK
        )
    _cross(draw, *start)
    return row


def _arrow(
    draw: ImageDraw.ImageDraw,
    start: tuple[int, int],
    end: tuple[int, int],
    color: tuple[int, int, int],
    width: int,
) -> None:
    along = np.subtract(end, start).astype(float)
    length = np.hypot(*along)
    if length < 1:
        return
    along /= length
    across = np.array([-along[1], along[0]])
    base = np.array(end) - 8 * along
    head = [tuple(end), tuple(base + 4 * across), tuple(base - 4 * across)]
    draw.line((*start, *end), BLACK, width + 2)
    draw.line((*start, *end), color, width)
    draw.polygon(head, fill=color, outline=BLACK)


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    row = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), WHITE)
    for k, picture in enumerate(pictures):
        row.paste(picture, (k * (width + GAP), 0))
    return row


def _text_row(text: str, pictures: Sequence[Image.Image]) -> Image.Image:
    width = max(len(pictures) * (pictures[0].width + GAP) - GAP, 8 * len(text))
    row = Image.new("RGB", (width, LINE), WHITE)
    ImageDraw.Draw(row).text((2, 1), text, BLACK, font=_font(13))
    return row


def _scale(weights: np.ndarray) -> str:
    signed = ", blue is below 0" if weights.min() < 0 else ""
    return f" (largest {np.abs(weights).max():.3g}{signed})"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
