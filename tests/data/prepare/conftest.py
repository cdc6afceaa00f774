from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_gray_video


@pytest.fixture(scope="session")
def clip_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of 24 frames, two groups of 12, whose index is at its beginning."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    options = {"movflags": "faststart"}
    write_gray_video(path, num_frames=24, size=(32, 32), fps=25, container_options=options)
    return path.read_bytes()


@pytest.fixture
def place(tmp_path: Path, clip_bytes: bytes) -> Callable[..., None]:
    """Write the video at paths below `tmp_path`, each with other bytes at its end."""

    def write(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(clip_bytes + b"\0\0\0\x20free" + name.encode().ljust(24, b"\0")[-24:])

    return write
