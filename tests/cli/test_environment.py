"""The environment is prepared before torch is loaded."""

import os
import subprocess
import sys

import pytest

from nlnet.cli.environment import prepare_environment


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
