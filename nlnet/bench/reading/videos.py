"""The files that bench=data reads: generated videos, in the form in which Kinetics is passed on.

Such a file is H.264 with a short side of 256 pixels, about 300 to 600 kbit/s, and the defaults of
x264: a key frame every 250 frames, up to 3 B-frames in a row, which may be references.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RATE = 30  # frames per second
HEIGHT, WIDTH = 256, 340
GOP = 250  # frames from one key frame to the next
PATCH = 80  # side of a moving square
# Cells across a texture and the contrast of each scale: large shapes and fine detail.
SCALES = ((4, 60.0), (16, 40.0), (64, 24.0), (160, 9.0))


def write_videos(folder: Path, count: int, num_frames: int) -> list[Path]:
    """Write `count` different videos to `folder`/<class>/; there are two classes."""
    paths = [folder / f"class{i % 2}" / f"video{i}.mp4" for i in range(count)]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_frames(path, _frames(seed=i, num_frames=num_frames))
    return paths


def encode_frames(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Encode frames, uint8 RGB (H, W, 3), as H.264 in an MP4 file with the defaults of x264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = HEIGHT, WIDTH
        stream.options = {
            "crf": "23",
            "g": str(GOP),
            "x264-params": "cpu-independent=1",  # the same file on every processor
        }
        for frame in frames:
            pixels = np.ascontiguousarray(frame)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def bit_rate(path: Path) -> float:
    """The bits of a file per second of its video."""
    with av.open(str(path)) as container:
        frames = container.streams.video[0].frames
    return 8 * path.stat().st_size * RATE / frames


def _frames(seed: int, num_frames: int) -> Iterator[np.ndarray]:
    """A camera that moves over a texture, squares that move on their own, and noise.

    The speeds and the noise differ from seed to seed.
    """
    rng = np.random.default_rng(seed)
    background = _texture(rng, 2 * HEIGHT, 2 * WIDTH)
    squares = [_texture(rng, PATCH, PATCH) for _ in range(3)]
    phases = rng.uniform(0, 2 * np.pi, (4, 2))
    speeds = rng.uniform(0.4, 1.6, (4, 2))
    noise = rng.uniform(2, 4)  # standard deviation, of 255 levels
    free = np.array([(HEIGHT - 2, WIDTH - 2), *[(HEIGHT - PATCH, WIDTH - PATCH)] * 3])
    for i in range(num_frames):
        places = (0.5 + 0.5 * np.sin(speeds * i / RATE * [[0.4], [1], [1], [1]] + phases)) * free
        picture = _window(background, *places[0])
        for square, (top, left) in zip(squares, places[1:].astype(int), strict=True):
            picture[:, top : top + PATCH, left : left + PATCH] = square
        grain = torch.from_numpy(rng.standard_normal((1, HEIGHT, WIDTH), dtype=np.float32))
        yield (picture + noise * grain).clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _texture(rng: np.random.Generator, height: int, width: int) -> Tensor:
    """A colored texture (3, height, width) with levels around 128."""
    texture = torch.full((3, height, width), 128.0)
    for cells, contrast in SCALES:
        coarse = torch.from_numpy(rng.standard_normal((1, 3, cells, cells), dtype=np.float32))
        texture += contrast * F.interpolate(coarse, (height, width), mode="bicubic")[0]
    return texture


def _window(texture: Tensor, top: float, left: float) -> Tensor:
    """The pixels (3, HEIGHT, WIDTH) from a place between pixels, interpolated."""
    y, x = int(top), int(left)
    pixels = texture[:, y : y + HEIGHT + 1, x : x + WIDTH + 1]
    rows = torch.lerp(pixels[:, :-1], pixels[:, 1:], top - y)
    return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], left - x)
