"""The time that a loader needs for one training clip."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F

from nlnet.bench.reading.videos import HEIGHT, WIDTH, encode_frames
from nlnet.config import ClipConfig
from nlnet.data.decoding.opening import open_video
from nlnet.data.transforms import JitterCrop, TrainTransform


def input_seconds(clip: ClipConfig, repeats: int, *, num_frames: int = 300) -> dict[str, float]:
    """Return the median seconds of decoding and of transforming one training clip.

    The clips come from random places of a generated file of `num_frames` frames, 340 x 256.
    """
    transform = TrainTransform(JitterCrop(clip.crop_size, 256, 320), clip.crop_size, True, 0.0)
    rng = np.random.default_rng(0)
    decoding, transforming = [], []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "moving.mp4"
        _write_video(path, num_frames=num_frames)
        for _ in range(repeats):
            span = clip.num_frames * clip.frame_stride
            first = int(rng.integers(max(num_frames - span, 1)))
            start = time.perf_counter()
            with open_video(path) as reader:
                frames = reader.read(first + clip.frame_stride * np.arange(clip.num_frames))
            middle = time.perf_counter()
            transform(frames, rng)
            decoding.append(middle - start)
            transforming.append(time.perf_counter() - middle)
    return {"decode": statistics.median(decoding), "transform": statistics.median(transforming)}


def _write_video(path: Path, num_frames: int) -> None:
    """Write a smooth moving pattern as H.264, 340 x 256, 30 frames a second."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, 64, 64))).float()
    picture = F.interpolate(coarse, (600, 700), mode="bilinear")[0].permute(1, 2, 0).byte().numpy()
    windows = (picture[i : i + HEIGHT, i : i + WIDTH] for i in range(num_frames))
    encode_frames(path, windows)
