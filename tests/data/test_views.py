"""Views that are made frame by frame are those of whole clips, bit for bit, in little memory."""

import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nlnet.data.transforms import (
    EvalTransform,
    JitterCrop,
    ResizedCrop,
    TrainTransform,
    WholeFrame,
)
from nlnet.data.views import ClipFrames, Transform, read_views, wanted_numbers
from tests.conftest import write_gray_video

TRANSFORMS = {
    "jitter": TrainTransform(JitterCrop(24, 32, 48), 24, flip=True, color_jitter=0.4),
    "resized": TrainTransform(ResizedCrop(0.3, 1.0), 24, flip=True, color_jitter=0.0),
    "one crop": EvalTransform(24, 24, 1),
    "three crops": EvalTransform(24, 32, 3),
    "whole": WholeFrame(24),
}
CLIPS = {
    "one": [[0, 3, 6, 9]],
    "repeated frames": [[5, 5, 9, 2]],
    "overlapping": [[0, 2, 4], [2, 4, 6], [4, 6, 8]],
    "more than a group": [list(range(20)), list(range(39, 10, -1))[:20]],
}


@pytest.mark.parametrize("clips", CLIPS.values(), ids=CLIPS)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_views_are_those_of_whole_clips(transform: Transform, clips: list[list[int]]):
    """Equal bits: resizing treats each frame alone, and changes see the same memory layout."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    expected = [
        view
        for i, clip in enumerate(clips)
        for view in transform(frames[clip], np.random.default_rng(i))
    ]
    wanted = [ClipFrames(np.array(clip), np.random.default_rng(i)) for i, clip in enumerate(clips)]
    read: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for number in wanted_numbers(wanted):
            read.append(int(number))
            yield frames[number]

    found = read_views(source(), wanted, transform)
    assert read == sorted({number for clip in clips for number in clip})
    assert len(found) == len(expected)
    for view, other in zip(found, expected, strict=True):
        assert view.dtype == torch.uint8 and view.is_contiguous()
        assert torch.equal(view, other)


@pytest.mark.parametrize(("side", "most"), [(64, 8), (1000, 2), (2000, 1)])
def test_few_frames_are_in_memory(side: int, most: int):
    """At most 8 frames and 8 MiB, but at least one frame, and the one that is being made."""
    alive, counts = set[int](), []

    def source() -> Iterator[np.ndarray]:
        for number in range(20):
            frame = np.zeros((side, side, 3), np.uint8)
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            counts.append(len(alive))
            yield frame
            del frame

    clips = [ClipFrames(np.arange(20), np.random.default_rng(0))]
    read_views(source(), clips, TRANSFORMS["one crop"])
    assert max(counts) == most


PEAK = """
import sys
from pathlib import Path
from torch.utils.data import DataLoader
from nlnet.data.clip_sampling import INDEX_RULES, SAMPLERS, ClipShape, FixedClips
from nlnet.data.dataset import VideoDataset, collate
from nlnet.data.decoding.opening import open_video
from nlnet.data.index.video_index import VideoIndex
from nlnet.data.transforms import EvalTransform

def resident(word):
    status = Path("/proc/self/status").read_text()
    return int(status.split(word + ":")[1].split()[0]) / 1024

class Watched:
    def __init__(self, data):
        self.data = data
    def __len__(self):
        return len(self.data)
    def __getitem__(self, key):
        return self.data[key]

def watched_collate(samples):
    batch = collate(samples)
    return batch.video.shape, resident("VmHWM")

path, side = Path(sys.argv[1]), int(sys.argv[2])
clips = FixedClips(SAMPLERS["dense"], ClipShape(32, 2), INDEX_RULES["loop"], 10)
index = VideoIndex([path], [0], ("a",))
data = VideoDataset(
    index, clips, EvalTransform(side, side, 3), open_video=open_video, seed=0, replacements=0
)
keys = [(0, 0)]
start = {}
def note_start(worker):
    import nlnet.data.transforms
    Path(sys.argv[3]).write_text(str(resident("VmRSS")))
loader = DataLoader(
    data, sampler=keys, num_workers=1, collate_fn=watched_collate, worker_init_fn=note_start
)
((shape, peak),) = loader
assert tuple(shape) == (30, 3, 32, side, side), shape
print(peak - float(Path(sys.argv[3]).read_text()))
"""


def peak_memory(path: Path, side: int) -> float:
    """MiB that a worker needs above its start for 30 views of 32 frames."""
    command = [sys.executable, "-c", PEAK, str(path), str(side), str(path.with_suffix(".txt"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_memory_is_that_of_the_views_and_of_a_few_frames(tmp_path: Path):
    """All frames of all clips at full size would be 10 x 32 x 1.2 MB = 380 MB."""
    path = write_gray_video(tmp_path / "video.mp4", num_frames=100, size=(480, 864))
    assert peak_memory(path, 64) < 100


@pytest.mark.slow
def test_a_4k_video_needs_less_than_400_mib(tmp_path: Path):
    """All frames at full size would be 8 GB; the views of 256 pixels are 180 MiB."""
    path = write_gray_video(
        tmp_path / "video.mp4",
        num_frames=80,
        size=(2160, 3840),
        options={"preset": "ultrafast", "refs": "3"},
    )
    assert peak_memory(path, 256) < 400
