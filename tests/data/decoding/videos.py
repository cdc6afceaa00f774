"""Small videos whose frames all differ, with motion and noise, and changes of their bytes."""

from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

# Container and encoder; with each, the options for two to three frames of type B where it has them.
FORMATS = {
    "h264.mp4": ("libx264", {"bf": "3", "x264-params": "cpu-independent=1"}),
    "h264.mkv": ("libx264", {"bf": "3", "x264-params": "cpu-independent=1"}),
    "h264.avi": ("libx264", {"bf": "0", "x264-params": "cpu-independent=1"}),
    "h264.ts": ("libx264", {"bf": "3", "x264-params": "cpu-independent=1"}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:pools=none:keyint=12"}),
    "hevc.mkv": ("libx265", {"x265-params": "log-level=none:pools=none:keyint=12"}),
    "mpeg4.mp4": ("mpeg4", {"bf": "2"}),
    "mpeg4.avi": ("mpeg4", {}),
    "vp9.webm": ("libvpx-vp9", {"lag-in-frames": "12"}),
}


@cache
def moving_frames(num_frames: int, height: int, width: int) -> np.ndarray:
    """A picture that moves by a pixel a frame, with some noise: uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 9, width // 8 + 9, 3))
    picture = coarse.repeat(8, 0).repeat(8, 1)
    noise = rng.integers(-9, 10, (num_frames, height, width, 1))
    moved = [picture[i % 64 : i % 64 + height, i % 64 : i % 64 + width] for i in range(num_frames)]
    return (np.stack(moved) + noise).clip(0, 255).astype(np.uint8)


def write_moving_video(
    path: Path,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    num_frames: int = 48,
    size: tuple[int, int] = (48, 64),
    gop: int = 12,
    faststart: bool = False,
    rotation: tuple[float, bool, bool] | None = None,  # degrees, mirrored left-right, up-down
) -> Path:
    container_options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"g": str(gop)} | (options or {})
        if rotation is not None:
            degrees, hflip, vflip = rotation
            stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        for i, pixels in enumerate(moving_frames(num_frames, *size)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple[int, int]]:
    """The position and the size of each packet of the video, in the order of the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def write_damaged(path: Path, source: Path, packet: int) -> Path:
    """A copy of a video in which 8 bytes of a packet are inverted."""
    data = bytearray(source.read_bytes())
    position, size = packets(source)[packet]
    start = position + (100 if path.suffix == ".ts" else size // 3)
    for i in range(start, start + 8):
        data[i] ^= 0x5A
    path.write_bytes(data)
    return path
