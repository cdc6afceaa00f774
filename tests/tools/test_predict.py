"""The command `tools/predict.py`, as typed: answers, exit codes and one-line errors."""

import subprocess
from collections.abc import Callable
from pathlib import Path

Tool = Callable[..., subprocess.CompletedProcess[str]]


def test_the_demonstration_answers(tool_alone: Tool, tmp_path: Path):
    done = tool_alone("predict", "demo", "--json", "p.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith("same.mp4") and lines[1].split()[-1] == "same"
    assert lines[3].endswith("different.mp4") and lines[4].split()[-1] == "different"
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_mistakes_are_one_line(tool_alone: Tool, tmp_path: Path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    for words, code, text in (
        (["text.pt", "demo"], 1, "text.pt"),
        (["demo", "gone.mp4"], 1, "1 of 1 videos"),
        (["demo", "--window", "x"], 2, "--window"),
    ):
        done = tool_alone("predict", *words, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert done.stderr.count("\n") == 1 and text in done.stderr
