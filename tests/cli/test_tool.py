"""The start of a tool: its help, its flags, its ranks and its exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from nlnet.cli.ranks import launch_ranks
from nlnet.errors import UsageError, UserError
from tests.cli.commands import ROOT, run_config, tool


@pytest.mark.parametrize("name", ["train", "eval", "describe", "convert"])
def test_help_shows_three_examples(tmp_path: Path, name: str):
    done = tool(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"python tools/{name}.py") >= 3


@pytest.mark.parametrize(("code", "kind"), [(1, UserError), (2, UsageError)])
def test_the_first_error_of_the_ranks_is_that_of_the_run(tmp_path: Path, code: int, kind: type):
    rank = tmp_path / "rank.py"
    rank.write_text(f"from nlnet.cli.mistakes import fail\nfail('no videos', {code})\n")
    with pytest.raises(UserError, match=r"^no videos$") as caught:
        launch_ranks(rank, tmp_path / "config.yaml", 2)
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "tools").glob("*.py")))
def test_help_loads_neither_torch_nor_hydra(name: str):
    """Both take seconds to load."""
    file = ROOT / "tools" / f"{name}.py"
    program = (
        "import atexit, runpy, sys\n"
        "slow = {'torch', 'hydra', 'torchvision'}\n"
        "atexit.register(lambda: print(slow & set(sys.modules)))\n"
        f"sys.argv = [{str(file)!r}, '--help']\n"
        f"runpy.run_path({str(file)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "set()"), done.stderr


def test_a_run_has_a_name():
    with pytest.raises(UsageError, match=r"^name is empty.*name=NAME"):
        run_config("name=")


@pytest.mark.parametrize("name", ["train", "describe"])
def test_a_reader_that_leaves_ends_a_tool_quietly(name: str):
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # as `| head -1` does after a line
        assert process.stderr.read() == b""
    assert process.returncode == 141
