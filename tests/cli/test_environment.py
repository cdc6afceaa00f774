"""The environment is prepared before torch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nlnet.cli.environment import prepare_environment
from tests.cli.commands import ROOT


def test_threads_wait_without_spinning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_variable_that_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_preparing_the_environment_loads_neither_torch_nor_hydra():
    program = (
        "import sys, nlnet.cli.environment\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PROGRAM = """
import importlib.abc, os, runpy, sys

class Torch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Torch())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("policy", [None, "ACTIVE"])
@pytest.mark.parametrize(
    "words",
    [
        ["tools/train.py", "+experiment=smoke"],
        ["tools/eval.py", "+experiment=smoke", "weights=best.pt"],
        ["tools/describe.py", "+experiment=smoke"],
        ["tools/benchmark.py", "bench=ops"],
        ["tools/convert.py", "a.pt", "b.pt"],
        ["nlnet/__main__.py", "describe", "+experiment=smoke"],
    ],
    ids=lambda words: words[0],
)
def test_every_tool_sets_the_variable_before_it_loads_torch(
    words: list[str], policy: str | None, tmp_path: Path
):
    """The process ends where torch would be imported, and prints the variable there."""
    environment = {name: text for name, text in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy is not None:
        environment["OMP_WAIT_POLICY"] = policy
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / words[0]), *words[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, f"{policy or 'PASSIVE'}\n"), done.stderr
