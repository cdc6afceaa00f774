"""Broken files of a run: found, counted, left out."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nlnet.runs.quarantine import QUARANTINE

pytestmark = pytest.mark.slow
Tool = Callable[..., object]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["model"]


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / QUARANTINE).open(newline="") as file:
        return list(csv.DictReader(file))


def break_files(videos: Path) -> list[str]:
    """Add broken files whose names are between those of the others."""
    good = sorted((videos / "train" / "same").iterdir())[0]
    broken = []
    for name, data in {
        "same/000000a": b"",
        "same/000004a": b"no video",
        "different/000002a": good.read_bytes()[:-200],
    }.items():
        path = videos / "train" / f"{name}.mp4"
        path.write_bytes(data)
        broken.append(str(path))
    return broken


def test_broken_files_change_nothing_if_they_are_found_at_the_start(
    tool: Tool, copy_of_videos: Path, tmp_path: Path
):
    """The weights are those of a run whose folder never had the files, bit for bit."""
    clean = Path(shutil.copytree(copy_of_videos, tmp_path / "clean"))
    broken = break_files(copy_of_videos)
    words = ("data.probe=decode", "data.max_bad_share=0.15", "trainer.save_every_steps=1")
    done = tool("train", f"data.root={copy_of_videos}", *words, "name=broken", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "broken" / "train"
    rows = listed(folder)
    assert {row["path"] for row in rows} == set(broken)
    assert {(row["stage"], row["count"]) for row in rows} == {("start", "1")}
    assert "3 training videos cannot be read and are left out" in done.stdout
    done = tool("train", f"data.root={clean}", *words, "name=clean", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = weights(tmp_path / "outputs" / "clean" / "train")
    found = weights(folder)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    # A resumed run leaves out the same files, without looking again.
    for name in ("last.pt", "last.prev.pt"):  # go back by one step
        (folder / name).with_name(f"{name}.sha256").unlink(missing_ok=True)
    (folder / "last.prev.pt").replace(folder / "last.pt")
    for path in broken:
        Path(path).unlink()
    shutil.copy(next((clean / "train" / "same").iterdir()), broken[0])  # repaired meanwhile
    done = tool("train", f"data.root={copy_of_videos}", *words, "name=broken", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes from last.pt" in done.stdout
    found = weights(folder)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_too_many_broken_files_stop_the_run_before_its_first_step(
    tool: Tool, copy_of_videos: Path, tmp_path: Path
):
    break_files(copy_of_videos)
    done = tool("train", f"data.root={copy_of_videos}", "data.probe=open", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "3 of 27 training videos cannot be read" in done.stderr
    assert "data.max_bad_share" in done.stderr
    assert len(listed(tmp_path / "outputs" / "smoke" / "train")) == 3


def test_files_that_are_found_in_a_run_are_listed_with_their_counts(
    tool: Tool, copy_of_videos: Path, tmp_path: Path
):
    broken = break_files(copy_of_videos)
    bad = sorted((copy_of_videos / "val" / "same").iterdir())[0]
    bad.write_bytes(b"")
    words = ("data.max_bad_share=0.5", "data.allow_bad=true", "trainer.max_steps=9")
    done = tool("train", f"data.root={copy_of_videos}", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = listed(tmp_path / "outputs" / "smoke" / "train")
    training = [row for row in rows if row["stage"] == "train"]
    assert {row["path"] for row in training} == set(broken)
    assert sum(int(row["count"]) for row in training) >= 3
    assert [(row["path"], row["count"]) for row in rows if row["stage"] == "val"] == [
        (str(bad), "3")  # three epochs
    ]
    assert "1 of 8 validation videos could not be read and count as wrong" in done.stdout
