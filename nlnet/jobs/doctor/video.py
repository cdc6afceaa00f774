"""Which codecs PyAV decodes, and a small video that is encoded and decoded."""

from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from nlnet.data.decoding.opening import open_video
from nlnet.data.encoding import VideoWriter
from nlnet.errors import UserError

CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "ffv1")
ENCODER = "libx264"  # writes the small video
NUM_FRAMES, STEP = 12, 16  # frame i has the gray level STEP * i
TOLERANCE = 8  # gray levels; the encoders lose a few


def decoders() -> dict[str, str]:
    """The version of FFmpeg's libavcodec, and the codecs that PyAV decodes and does not.

    Raises UserError if H.264 is not decoded, which most data sets need.
    """
    codec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    known = [name for name in CODECS if _exists(name, "r")]
    lacking = [name for name in CODECS if name not in known]
    if "h264" not in known:
        raise UserError("PyAV does not decode h264")
    found = {"libavcodec": codec, "decodes": ", ".join(known)}
    return found | ({"cannot decode": ", ".join(lacking)} if lacking else {})


def encode_and_decode() -> dict[str, str]:
    """Write a video of gray frames, read some of them, and compare the levels.

    Raises UserError if the reader returns a wrong frame.
    """
    if not _exists(ENCODER, "w"):
        raise UserError(f"PyAV has no encoder {ENCODER}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gray.mp4"
        with VideoWriter(path, rate=10) as writer:
            for i in range(NUM_FRAMES):
                writer.write(np.full((48, 64, 3), STEP * i, np.uint8), i / 10)
        wanted = np.array([7, 0, 11, 5])
        with open_video(path) as reader:
            count, frames = reader.num_frames, reader.read(wanted)
    levels = frames.reshape(len(wanted), -1).mean(1)
    if count != NUM_FRAMES or np.abs(levels - STEP * wanted).max() > TOLERANCE:
        raise UserError(
            f"frames {wanted.tolist()} of {count} have the gray levels {levels.round().tolist()}, "
            f"not {(STEP * wanted).tolist()}"
        )
    return {"encoder": ENCODER, "frames": f"{count} written, {len(wanted)} read and compared"}


def _exists(name: str, mode: str) -> bool:
    try:
        av.codec.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True
