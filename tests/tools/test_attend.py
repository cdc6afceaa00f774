"""tools/attend.py: its files, its text, and its one-line errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tools.conftest import Tool


def test_demo_writes_pictures_and_arrays(tool_alone: Tool, tmp_path: Path):
    done = tool_alone("attend", "demo", "--npz", "--score", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "outputs" / "attend" / "same"
    names = {"attention.png", "attention.npz", "res3.nl0.gif", "res3.nl1.gif"}
    assert {path.name for path in out.iterdir()} == names
    assert "% same" in done.stdout
    assert "auto: the most concentrated row" in done.stdout
    assert "deletion: area" in done.stdout
    with np.load(out / "attention.npz") as arrays:
        rows = arrays["res3.nl1/pairwise"]
        assert rows.shape == tuple(arrays["res3.nl1/map_sizes"])
        assert rows.sum() == pytest.approx(1)
        assert arrays["frames"].shape == (8, 64, 64, 3)


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["demo", "--query", "9,0,0"], 1, ["query=9,0,0", "8 frames of 64 x 64"]),
        (["demo", "--query", "1,2"], 2, ["--query 1,2", "t,y,x"]),
        (["demo", "--block", "res4.nl3"], 1, ["res4.nl3", "res3.nl0, res3.nl1"]),
        (["demo", "--method", "cam"], 1, ["method=cam", "rows, gradcam"]),
        (["demo", "absent.mp4"], 1, ["absent.mp4: no such file"]),
        (["absent.pt"], 2, ["VIDEO is missing"]),
        (["demo", "--out", "/proc/none"], 1, ["/proc/none", "--out"]),
    ],
)
def test_an_error_is_one_line(
    tool_alone: Tool, tmp_path: Path, words: list[str], code: int, parts: list[str]
):
    done = tool_alone("attend", *words, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in parts)


def test_a_plain_network_names_gradcam_and_shows_it(
    tool: Tool, tool_alone: Callable, few_videos: Path, tmp_path: Path
):
    done = tool("train", "non_local=none", "trainer.max_steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkpoint = "outputs/smoke/train/last.pt"
    video = str(next((few_videos / "test").rglob("*.mp4")))
    refused = tool_alone("attend", checkpoint, video, cwd=tmp_path)
    assert refused.returncode == 1
    assert "gradcam" in refused.stderr
    shown = tool_alone("attend", checkpoint, video, "--method", "gradcam", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "res5 (not of one query)" in shown.stdout
