"""A reader who types the commands of a page, in their order, arrives at a report."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.test_documentation import DOCS, SHORT, commands, make_videos, run

pytestmark = pytest.mark.slow


def typed(page: str, word: str) -> list[str]:
    """The commands of a page that contain a word, without those that install."""
    return [each for each in commands(DOCS / page) if word in each and "install" not in each]


def test_the_quickstart_ends_with_a_report(tmp_path: Path):
    make_videos(tmp_path / "data" / "same_different")
    for command in typed("quickstart.md", "my_first"):
        run(command, tmp_path, *(SHORT if "tools/train.py" in command else ()))
    assert (tmp_path / "outputs/my_first/eval/report.html").is_file()


def test_training_on_own_videos_ends_with_a_report_and_predictions(tmp_path: Path):
    make_videos(tmp_path / "my_videos")
    video = next((tmp_path / "my_videos" / "val").rglob("*.mp4"))
    shutil.copy(video, tmp_path / "video.mp4")
    walked = [each for each in typed("train.md", "folder_small") if " " in each]
    assert len(walked) >= 8
    for command in walked:
        more = SHORT if "tools/train.py" in shlex.split(command) else ()
        if "+debug=overfit" in command:
            more = (*SHORT, "trainer.max_steps=200")
        said = run(command, tmp_path, *more)
        if "tools/predict.py" in command:
            assert " %  same\n" in said or " %  different\n" in said
    for name in ("train/best.pt", "eval/metrics.json", "eval/report.html"):
        assert (tmp_path / "outputs/folder_small" / name).is_file()
    assert list(tmp_path.glob("outputs/predict/video.*"))
    assert list(tmp_path.glob("outputs/attend/*/*.png"))
