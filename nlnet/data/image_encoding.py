"""Writing a frame as an image: JPEG, or PNG without loss."""

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from nlnet.data.encoding import SCALING

JPEG_QUALITY = 2  # FFmpeg's scale (-q:v), from 1, the best, to 31; about 90 on the scale of libjpeg
_FORMATS = {
    "jpg": ("mjpeg", "yuvj420p", {"qmin": str(JPEG_QUALITY), "qmax": str(JPEG_QUALITY)}),
    "png": ("png", "rgb24", {}),
}
IMAGE_FORMATS = tuple(_FORMATS)


def encode_image(frame: np.ndarray, kind: str, size: tuple[int, int] | None = None) -> bytes:
    """The bytes of an image file of a kind of IMAGE_FORMATS, from uint8 RGB (H, W, 3).

    `size` is the width and the height to which the frame is scaled; None keeps its own.
    """
    codec, pixels, options = _FORMATS[kind]
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    if pixels != "rgb24" or size is not None:
        width, height = size or (None, None)
        color_range = None if pixels == "rgb24" else ColorRange.JPEG
        picture = VideoReformatter().reformat(
            picture,
            width,
            height,
            pixels,
            interpolation=SCALING,
            dst_color_range=color_range,
            threads=1,
        )
    encoder = av.VideoCodecContext.create(codec, "w")
    encoder.thread_type, encoder.thread_count = "NONE", 1
    encoder.width, encoder.height = picture.width, picture.height
    encoder.pix_fmt, encoder.time_base, encoder.options = pixels, 1, dict(options)
    return b"".join(map(bytes, [*encoder.encode(picture), *encoder.encode(None)]))
