"""Shared fixtures: the reference data, and real video files that the tests make."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.wrong_kernel import wrong_kernel as wrong_kernel  # a fixture

VideoFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference videos; tests that need it are skipped if there is none."""
    root = Path(__file__).parents[1]
    path = Path(os.environ.get("NLNET_SHARED", root.parent / "shared")) / "data"
    if not path.is_dir():
        pytest.skip("there is no reference data (NLNET_SHARED)")
    return path


@pytest.fixture
def video_file(tmp_path: Path) -> VideoFactory:
    """A function that makes small files whose frame i has the gray level 4 i (modulo 256).

    The level of a decoded frame therefore tells its number. Options: see `write_gray_video`.
    """

    def make(name: str = "gray.mp4", **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_gray_video(path, **options)

    return make


def write_gray_video(
    path: Path,
    *,
    num_frames: int = 48,
    size: tuple[int, int] = (48, 64),  # height, width
    fps: int = 30,
    gop: int = 12,
    b_frames: int = 2,
    first_pts: int = 0,
    tint: tuple[int, int, int] = (1, 1, 1),  # 0 removes a color
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    height, width = size
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, fps)
        settings = {"g": str(gop), "bf": str(b_frames), **(options or {})}
        if codec == "libx264":  # x264 then writes the same bytes on every processor
            params = settings.get("x264-params")
            settings["x264-params"] = (
                f"{params}:cpu-independent=1" if params else "cpu-independent=1"
            )
        stream.options = settings
        for i in range(num_frames):
            pixels = np.full((height, width, 3), 4 * i % 256 * np.array(tint), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = first_pts + i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
