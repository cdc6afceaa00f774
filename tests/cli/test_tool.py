"""The start of a tool: its help, its flags, its ranks and its exit codes."""

import sys
from pathlib import Path

import pytest

from nlnet.cli.tool import launch_ranks, run_tool
from nlnet.errors import UsageError, UserError
from tests.cli.commands import run_config, tool


@pytest.mark.parametrize("name", ["train", "eval", "describe", "convert"])
def test_help_shows_three_examples(tmp_path: Path, name: str):
    done = tool(name, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"python tools/{name}.py") >= 3


@pytest.mark.parametrize(("code", "kind"), [(1, UserError), (2, UsageError)])
def test_the_first_error_of_the_ranks_is_that_of_the_run(tmp_path: Path, code: int, kind: type):
    rank = tmp_path / "rank.py"
    rank.write_text(f"from nlnet.cli.tool import fail\nfail('no videos', {code})\n")
    with pytest.raises(UserError, match=r"^no videos$") as caught:
        launch_ranks(rank, tmp_path / "config.yaml", 2)
    assert type(caught.value) is kind


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_the_flag_of_a_sweep_may_stand_anywhere(flag: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "a=1,2", flag, "+b=3", "--cfg", "job"])
    run_tool(lambda: None)
    assert sys.argv == ["train.py", "a=1,2", "+b=3", "--cfg", "job", flag]


def test_a_run_has_a_name():
    with pytest.raises(UsageError, match=r"^name is empty.*name=NAME"):
        run_config("name=")
