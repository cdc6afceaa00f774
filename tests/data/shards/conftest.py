import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from nlnet.data.index.read import read_index
from nlnet.data.index.video_index import VideoIndex
from nlnet.jobs.prepare import run_prepare
from tests.data.decoding.videos import write_moving_video

LONG = "x" * 120  # longer than the field of a tar header
# Names that a tar file or WebDataset could confuse, in all containers.
VIDEOS = {
    "train/a/0.mp4": ("libx264", {"bf": "3", "x264-params": "cpu-independent=1"}),
    "train/a/0.mkv": ("libx264", {"bf": "3", "x264-params": "cpu-independent=1"}),
    "train/a/two.dots.avi": ("mpeg4", {}),
    "train/a/two_dots.webm": ("libvpx-vp9", {}),
    f"train/b/{LONG}.ts": ("libx264", {"bf": "3", "x264-params": "cpu-independent=1"}),
    "train/b/é 'ü\".MP4": ("mpeg4", {"bf": "2"}),
    "train/b/1.avi": ("mpeg4", {}),
    "val/a/0.webm": ("libvpx-vp9", {}),
    "val/b/1.mp4": ("mpeg4", {}),
}


def shards_of(root: Path, size: str = "15KB", **words: object) -> Path:
    """Prepare a folder with shards, in this process; returns the folder of the shards."""
    words = {"suspects": None, "clip": "2x1", "workers": 0, **words}
    run_prepare("folder", root=root, shards=size, **words)
    return root / "manifest.shards"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of all containers, their manifest, and their shards."""
    root = tmp_path_factory.mktemp("prepared")
    for i, (name, (codec, options)) in enumerate(VIDEOS.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_moving_video(path, codec=codec, options=options, num_frames=30 + i)
    (root / "train/a/bad.mp4").write_text("no video")
    shards_of(root)
    return root


@pytest.fixture
def copied(prepared: Path, tmp_path: Path) -> Path:
    """A folder of shards that a test may change."""
    return Path(shutil.copytree(prepared / "manifest.shards", tmp_path / "shards"))


@dataclass(frozen=True)
class Both:
    """The same split from files and from shards."""

    files: VideoIndex
    shards: VideoIndex


@pytest.fixture(params=["train", "val"])
def both(request: pytest.FixtureRequest, prepared: Path) -> Both:
    split = f"manifest.parquet#{request.param}"
    return Both(read_index(prepared, split), read_index(prepared / "manifest.shards", split))
