"""A written video has the frames and times that were given, or does not exist."""

from pathlib import Path

import numpy as np
import pytest

from nlnet.data.decoding.stream import PyAVStream
from nlnet.data.encoding import VideoWriter
from nlnet.errors import UserError


def test_frames_and_times_come_back(tmp_path: Path):
    path = tmp_path / "new" / "video.mp4"
    times = [0, 0.1, 0.2, 0.5, 0.55, 2.0]
    with VideoWriter(path, 10.0) as writer:
        for i, time in enumerate(times):
            writer.write(np.full((32, 48, 3), 40 * i, np.uint8), time)
        assert not path.exists()
    with PyAVStream(path) as stream:
        frames = list(stream)
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-3)
    levels = [frame.pixels().mean() for frame in frames]
    assert levels == pytest.approx([0, 40, 80, 120, 160, 200], abs=3)
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_no_file_and_keeps_the_old_one(tmp_path: Path):
    path = tmp_path / "video.mp4"
    path.write_text("old")
    with pytest.raises(KeyError), VideoWriter(path, 10.0) as writer:
        writer.write(np.zeros((32, 48, 3), np.uint8), 0.0)
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write video\.mp4 \([^\n]+\); [^\n]+$"):
        VideoWriter(tmp_path / "file" / "video.mp4", 10.0)
