import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import run_python
from tests.tools.running import ENVIRONMENT

ROOT = Path(__file__).parents[2]
SMALL = (
    "+experiment=smoke",
    "data.num_workers=0",
    "data.batch_size=8",
    "trainer.max_steps=6",
    "dist.device=cpu",
)

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def few_videos(tmp_path_factory) -> Path:
    """24 training videos and 7 test videos of two classes."""
    root = tmp_path_factory.mktemp("videos") / "few"
    command = [str(ROOT / "scripts" / "make_same_different.py"), "--out", str(root)]
    command += ["--train", "24", "--val", "8", "--test", "8", "--workers", "1"]
    done = run_python(command, root.parent)
    assert done.returncode == 0, done.stderr
    (root / "test" / "same" / "000001.mp4").unlink()
    return root


@pytest.fixture
def copy_of_videos(few_videos: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(few_videos, tmp_path / "videos"))


@pytest.fixture(scope="session")
def command(few_videos: Path) -> Callable[..., list[str]]:
    """The command line of a small run: (tool, *overrides) -> words."""

    def words(name: str, *overrides: str) -> list[str]:
        tool = str(ROOT / "tools" / f"{name}.py")
        return [sys.executable, tool, *SMALL, f"data.root={few_videos}", *overrides]

    return words


def run_command(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_python(words[1:], cwd, env=ENVIRONMENT)


@pytest.fixture(scope="session")
def tool(command: Callable[..., list[str]]) -> Tool:
    """Run a tool on a small run: (tool, *overrides, cwd=folder) -> the ended process."""

    def run(name: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return run_command(command(name, *overrides), cwd)

    return run


@pytest.fixture(scope="session")
def tool_alone() -> Tool:
    """Run a tool with the given words only: no experiment, no sizes of a small run."""

    def run(name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return run_command([sys.executable, str(ROOT / "tools" / f"{name}.py"), *words], cwd)

    return run


@pytest.fixture(scope="session")
def trained(tool: Tool, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run: two epochs of three steps."""
    cwd = tmp_path_factory.mktemp("trained")
    done = tool("train", "trainer.save_every_steps=1", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (cwd / "said.txt").write_text(done.stdout)
    return cwd / "outputs" / "smoke" / "train"
