"""The comparison of readers on one's own videos."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_readers.py"


@pytest.mark.slow
def test_a_row_for_each_video(video_file: Callable[..., Path], tmp_path: Path):
    paths = [str(video_file(name, num_frames=70, size=(48, 64))) for name in ("a.mp4", "b.mkv")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *paths], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    _, _, *rows = done.stdout.splitlines()
    for row, name in zip(rows, ("a.mp4", "b.mkv"), strict=True):
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert cells[:2] == [name, "70"]
        for cell in cells[3:]:
            ratio, _, times = cell.partition(" ")
            ours, peer = (float(part) for part in times.strip("()").split(" / "))
            assert float(ratio) > 0 and ours >= 0 and peer >= 0


def test_a_file_that_is_no_video_is_named(tmp_path: Path):
    (tmp_path / "no.mp4").write_bytes(b"no video")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "no.mp4"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("no.mp4: ")
    assert "Traceback" not in done.stderr
