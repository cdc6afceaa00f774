"""Writing a frame as an image: JPEG, or PNG without loss."""

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

JPEG_QUALITY = 2  # FFmpeg's scale (-q:v), from 1, the best, to 31; about 90 on the scale of libjpeg
# The default rounding of FFmpeg makes gray pixels of JPEG images one to two levels darker.
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_FORMATS = {
    "jpg": ("mjpeg", "yuvj420p", {"qmin": str(JPEG_QUALITY), "qmax": str(JPEG_QUALITY)}),
    "png": ("png", "rgb24", {}),
}
IMAGE_FORMATS = tuple(_FORMATS)


def encode_image(frame: np.ndarray, kind: str) -> bytes:
    """The bytes of an image file of a kind of IMAGE_FORMATS, from uint8 RGB (H, W, 3)."""
    codec, pixels, options = _FORMATS[kind]
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    if pixels != "rgb24":
        picture = VideoReformatter().reformat(
            picture, format=pixels, interpolation=_EXACT, dst_color_range=ColorRange.JPEG, threads=1
        )
    encoder = av.VideoCodecContext.create(codec, "w")
    encoder.thread_type, encoder.thread_count = "NONE", 1
    encoder.height, encoder.width = frame.shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.options = pixels, 1, dict(options)
    return b"".join(map(bytes, [*encoder.encode(picture), *encoder.encode(None)]))
