"""Small looping previews of videos, as data URIs that a page can hold.

Animated WebP: a tenth of the size of a GIF, and every current browser plays it.
"""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nlnet.data.decoding.opening import open_video
from nlnet.data.decoding.reader import DecodeError, FrameCountError, VideoReader
from nlnet.data.shards.by_name import is_present
from nlnet.report.statistics import spread_ends

NUM_FRAMES = 16
SHORT_SIDE = 112  # pixels
DURATION = 2000  # milliseconds of a loop


class Picture(NamedTuple):
    """A picture of a page: a title, and an image as a data URI."""

    title: str
    uri: str


class Preview(NamedTuple):
    """A preview, or the reason why there is none."""

    uri: str | None
    problem: str = ""


def preview(path: Path) -> Preview:
    """Decode frames from the whole video; a video that cannot be read gives the reason."""
    if not is_present(path):
        return Preview(None, "there is no such file any more")
    try:
        return Preview(animation(spread_frames(path, NUM_FRAMES)))
    except DecodeError as error:
        return Preview(None, error.cause)


def spread_frames(path: Path, count: int) -> np.ndarray:
    """At most `count` frames (n, H, W, 3), spread over a whole video; raises DecodeError."""
    with open_video(path) as reader:
        return _read(reader, count)


def _read(reader: VideoReader, most: int) -> np.ndarray:
    for attempt in range(2):
        try:
            return reader.read(spread_ends(reader.num_frames, most))
        except FrameCountError:  # the reader now has the true number of frames
            if attempt:
                raise
    raise AssertionError("the loop returns or raises")


def animation(frames: np.ndarray) -> str:
    """Return frames (n, H, W, 3) uint8 as a looping animation with a short side of SHORT_SIDE."""
    height, width = frames.shape[1:3]
    scale = SHORT_SIDE / min(height, width)
    size = round(width * scale), round(height * scale)
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=DURATION // len(images),
        loop=0,
        quality=60,
        method=2,
    )
    return data_uri(buffer.getvalue(), "image/webp")


def data_uri(data: bytes, kind: str) -> str:
    """Return data of a media type as a URI that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
