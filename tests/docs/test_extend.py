"""The worked examples of docs/extend.md work as they stand on the page.

Each section is applied to a copy of nlnet; then its commands run there.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands import run_python
from tests.test_documentation import DOCS, ROOT, SHORT, blocks, commands, make_videos

PAGE = DOCS / "extend.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
pytestmark = pytest.mark.slow


class Change(NamedTuple):
    """A change of a file: `place` is write, above, below, instead of or at the end."""

    path: str
    place: str
    line: str  # the beginning of the line that `place` refers to
    code: str


def changes(section: str) -> list[Change]:
    """The code blocks of a section, each with the sentence before it."""
    found = []
    fence = r"^(Write|In) `([^`]+)`(?:, (above|below|instead of|at the end)(?: `([^\n]+)`)?)?:\n\n"
    for kind, path, place, line, code in re.findall(
        fence + r"```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL
    ):
        found.append(Change(path, "write" if kind == "Write" else place, line, code))
    fences = len(re.findall(r"^```(?:python|yaml|text)$", section, re.MULTILINE))
    assert len(found) == fences, "a code block has no sentence that says where it goes"
    return found


def apply(change: Change, root: Path) -> None:
    path = root / change.path
    if change.place == "write":
        assert not path.exists(), f"{change.path} exists already"
        path.write_text(change.code)
        return
    lines = path.read_text().splitlines(keepends=True)
    if change.place == "at the end":
        lines.append("\n\n" + change.code)
    else:
        fitting = [i for i, text in enumerate(lines) if text.strip().startswith(change.line)]
        assert len(fitting) == 1, f"{change.path} has {len(fitting)} lines {change.line}"
        (i,) = fitting
        end = i + (change.place != "above")
        # A function or a class has two empty lines after it, as everywhere.
        space = "\n\n" if re.match(r"def |class |@", change.code) else ""
        lines[i + (change.place == "below") : end] = [change.code + space]
    path.write_text("".join(lines))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.splitlines()[0])
def test_a_worked_example_works_as_it_stands_on_the_page(section: str, tmp_path: Path):
    for name in ("nlnet", "configs", "tools", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for change in changes(section):
        apply(change, tmp_path)
    make_videos(tmp_path / "my_videos")
    write_json_lists(tmp_path / "my_videos", tmp_path / "my_lists")
    (tmp_path / "section.md").write_text(section)
    lines = list(commands(tmp_path / "section.md"))
    assert any("tools/train.py" in line for line in lines)
    for line in (line for line in lines if line.startswith("python ")):
        words = shlex.split(line)[1:]
        words += SHORT if words[0] == "tools/train.py" else ()
        words += ("-q", "-p", "no:cacheprovider") if "pytest" in words else ()
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        if words[0] == "-m":
            done = subprocess.run(
                [sys.executable, *words],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
            )
        else:
            done = run_python([str(tmp_path / words[0]), *words[1:]], tmp_path, env=environment)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    assert list(tmp_path.glob("outputs/*/train/best.pt"))


def write_json_lists(videos: Path, root: Path) -> None:
    """The same videos as JSON lists, as the example of a data set has them."""
    (root / "clips").mkdir(parents=True)
    for split in ("train", "val"):
        rows = []
        for video in sorted((videos / split).glob("*/*.mp4")):
            name = f"{split}_{video.parent.name}_{video.name}"
            shutil.copy(video, root / "clips" / name)
            rows.append({"file": name, "label": video.parent.name})
        (root / f"{split}.json").write_text(json.dumps(rows))


def test_every_code_block_of_the_api_page_runs(tmp_path: Path):
    examples = list(blocks(DOCS / "api.md", "python"))
    assert len(examples) == 2
    for code in examples:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
