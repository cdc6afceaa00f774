"""What one attempt leaves for the next one."""

from pathlib import Path

import pytest

from nlnet.distributed.attempts import end_run, final_code, is_said_first, shared_folder


@pytest.fixture
def agent(monkeypatch, tmp_path: Path) -> Path:
    """The variables that the agent of torchrun sets in the third attempt."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_2" / "0" / "error.json"))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    return tmp_path


def test_without_a_launcher_nothing_is_remembered():
    assert shared_folder() is None
    end_run(2)
    assert final_code() is None
    assert is_said_first("x") and is_said_first("x")


def test_a_message_is_said_once_for_all_attempts(agent: Path, monkeypatch):
    assert shared_folder() == agent
    assert is_said_first("x")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(agent / "attempt_3" / "1" / "error.json"))
    assert not is_said_first("x")
    assert is_said_first("y")


def test_the_end_of_a_run_holds_for_later_attempts(agent: Path, monkeypatch):
    assert final_code() is None
    end_run(2)
    assert final_code() == 2
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")  # a new launch
    assert final_code() is None
