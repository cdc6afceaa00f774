"""Runs whose outputs are on a small disk of their own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.conftest import Tool
from tests.tools.running import ENVIRONMENT
from tests.tools.test_train import saved

pytestmark = pytest.mark.slow
Command = Callable[..., list[str]]
# Users may mount in a namespace of their own. Its mounts end with it, so the files are copied.
ON_A_DISK = 'mount -t tmpfs -o size="$1" none outputs && shift || exit 99; '
ON_A_DISK += '"$@"; code=$?; cp -r outputs kept; exit $code'


def run_on_disk(size: str, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    (cwd / "outputs").mkdir()
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", ON_A_DISK, "sh", size, *words]
    try:
        done = subprocess.run(
            shell, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=240
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 99 or done.stderr.startswith("unshare"):
        pytest.skip(f"this system lets no user mount a disk: {done.stderr}")
    (cwd / "outputs").rmdir()
    return done


def test_a_disk_that_becomes_full_keeps_the_older_checkpoint(
    command: Command, tool: Tool, tmp_path: Path
):
    """A checkpoint of the run has 2 MB: there is no space for a third one."""
    train = command("train", "trainer.save_every_steps=1")
    done = run_on_disk("5M", train, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "last.pt: cannot be written (No space left on device)" in done.stderr
    (tmp_path / "kept").rename(tmp_path / "outputs")
    folder = tmp_path / "outputs" / "smoke" / "train"
    names = ("last.pt", "last.prev.pt")
    assert [saved(folder, name)["progress"]["global_step"] for name in names] == [2, 1]
    done = tool("train", "trainer.save_every_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes from last.pt, after 2 steps" in done.stdout


def test_a_full_disk_at_the_start_costs_one_line(command: Command, tmp_path: Path):
    fill = 'dd if=/dev/zero of=outputs/fill bs=4096 2> /dev/null; exec "$@"'
    done = run_on_disk("64k", ["sh", "-c", fill, "sh", *command("train")], tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "outputs/smoke/train: cannot be written (No space left on device)" in done.stderr
