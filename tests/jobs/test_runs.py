"""The list of runs."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlnet.cli.folders import claim_folder
from nlnet.config import ResNetConfig, RunConfig, SGDConfig, StepConfig
from nlnet.errors import UsageError, UserError
from nlnet.files import COMMAND, LOCK
from nlnet.jobs.run_folders import find_runs, holder
from nlnet.jobs.runs import RunsOptions, age_text, chosen, show_differences, show_runs

MakeRun = Callable[..., Path]
HOLD = """
import sys, time
from pathlib import Path
from nlnet.cli.folders import hold_folder
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that makes a run folder: (name, epochs done, last line, **settings) -> folder."""

    def make(name: str, done: int = 0, line: str = "", lr: float = 0.1, **trainer: Any) -> Path:
        folder = tmp_path / "outputs" / name
        run = RunConfig(name=name, model=ResNetConfig(), optim=SGDConfig(), schedule=StepConfig())
        run.optim.lr, run.trainer.epochs, run.data.root = lr, 3, "."
        for key, value in trainer.items():
            setattr(run.trainer, key, value)
        folder.mkdir(parents=True)
        claim_folder(run, folder)
        (folder / LOCK).write_text(
            f"process {os.getpid()} on host"
        )  # that lives, but holds no lock
        (folder / "log.txt").write_text(f"2026-01-01 00:00:00 begin\n2026-01-01 00:00:01 {line}\n")
        epochs = [{"epoch": i + 1, "global_step": 4 * (i + 1)} for i in range(done)]
        metrics = {"best_top1": 50.0 + done, "main_metric": "top1"} if done else {}
        (folder / "metrics.json").write_text(json.dumps(metrics | {"epochs": epochs}))
        (folder / COMMAND).write_text(f"python tools/train.py name={name}\n")
        return folder

    return make


def test_the_status_follows_from_the_folder(make_run: MakeRun, tmp_path: Path):
    make_run("whole/train", done=3, line="done")
    make_run("steps/train", done=2, line="done", epochs=None, max_steps=8)
    make_run("half/train", done=2, line="asked to stop: saved last.pt; the same command resumes")
    make_run("dead/train", done=1, line="epoch 2/3  step 3/4")
    make_run("fresh/train")
    (tmp_path / "outputs" / "fresh" / "train" / "metrics.json").write_text("{")
    found = {run.name: run for run in find_runs(tmp_path / "outputs")}
    assert list(found) == sorted(found)
    said = {name: (run.status, run.progress) for name, run in found.items()}
    assert said == {
        "dead/train": ("failed", "1/3"),
        "fresh/train": ("failed", "0/3"),
        "half/train": ("stopped", "2/3"),
        "steps/train": ("finished", "2"),
        "whole/train": ("finished", "3/3"),
    }
    assert found["whole/train"].score == "top1 53.00 (1x1)"
    assert found["fresh/train"].score == "-"


def test_a_run_is_running_while_its_process_holds_the_lock(make_run: MakeRun, tmp_path: Path):
    """Also if its log ends as that of a stopped run; a dead process holds no lock."""
    folder = make_run("a/train", done=1, line="; the same command resumes")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        (run,) = find_runs(tmp_path)
        assert (run.status, holder(folder)) == ("running", process.pid)
    finally:
        process.kill()
        process.communicate()
    assert f"process {process.pid} on" in (folder / LOCK).read_text()
    (run,) = find_runs(tmp_path)
    assert (run.status, holder(folder)) == ("stopped", None)


def test_the_table_fits_a_terminal(make_run: MakeRun, tmp_path: Path, capsys):
    make_run("short/train", done=3)
    make_run(f"{'long' * 20}/train", done=2)
    show_runs(tmp_path, RunsOptions())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) < 80
    assert lines[1].startswith("...") and "/train failed " in lines[1]
    assert lines[-1] == "2 runs: 1 finished, 1 failed"


def test_a_run_folder_is_shown_in_detail(make_run: MakeRun, capsys):
    show_runs(make_run("a/train", done=3, line="done"), RunsOptions())
    said = capsys.readouterr().out
    assert "command   python tools/train.py name=a/train" in said and "last line done" in said


def test_runs_are_found_by_their_keys(make_run: MakeRun, tmp_path: Path):
    for name, lr in (("a", 0.1), ("b", 0.0001), ("c", 0.1)):
        make_run(f"{name}/train", lr=lr, precision="bf16" if name == "c" else "fp32")

    def names(*where: str) -> list[str]:
        return [run.name[:1] for run in chosen(tmp_path / "outputs", where)]

    assert names("optim.lr=0.1") == ["a", "c"]
    assert names("optim.lr=1e-4") == ["b"]
    assert names("optim.lr=0.1", "trainer.precision=bf16") == ["c"]
    assert names("trainer.compile=false") == ["a", "b", "c"]
    assert names("trainer.compile=0") == []
    with pytest.raises(UsageError, match=r"no run has the key optim\.rate; .*optim\.lr"):
        names("optim.rate=1")
    with pytest.raises(UsageError, match=r"^--where optim\.lr: give KEY=VALUE"):
        names("optim.lr")


def test_the_differences_of_two_runs(make_run: MakeRun, tmp_path: Path, capsys):
    show_differences(make_run("a"), make_run("b", lr=0.5))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["name: a -> b", "optim.lr: 0.1 -> 0.5"]
    assert lines[2].startswith("2 of ")
    with pytest.raises(UserError, match="is not a run folder"):
        show_differences(tmp_path, tmp_path)


def test_the_csv_has_the_keys_that_differ(make_run: MakeRun, tmp_path: Path):
    make_run("a/train", done=3)
    make_run("b/train", done=1, lr=0.5)
    show_runs(tmp_path / "outputs", RunsOptions(csv=tmp_path / "runs.csv"))
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [(row["name"], row["status"], row["best"]) for row in rows] == [
        ("a/train", "finished", "53.0"),
        ("b/train", "failed", "51.0"),
    ]
    assert [row["optim.lr"] for row in rows] == ["0.1", "0.5"]
    assert "trainer.epochs" not in rows[0]


def test_watching_ends_with_the_last_running_run(make_run: MakeRun, tmp_path: Path, capsys):
    folder = make_run("a/train", done=1, line="epoch 2/3  step 1/4")
    process = subprocess.Popen(
        [sys.executable, "-c", f"{HOLD.replace('600', '2')}", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    show_runs(tmp_path, RunsOptions(watch=0.1))
    process.communicate()
    said = capsys.readouterr().out
    assert "1 runs: 1 running\noutputs/a/train: epoch 2/3  step 1/4\n" in said
    assert said.endswith("no run\n")


def test_hundreds_of_runs_are_read_without_torch(make_run: MakeRun, tmp_path: Path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom nlnet.jobs.runs import RunsOptions, show_runs\n"
        "show_runs(Path(sys.argv[1]), RunsOptions())\n"
        "assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules)\n"
    )
    text = (make_run("0/train", done=2) / "config.yaml").read_text()
    for i in range(1, 300):
        folder = tmp_path / "outputs" / str(i) / "train"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(text)
        (folder / "log.txt").touch()
    start = time.process_time()
    assert len(list(find_runs(tmp_path))) == 300
    assert time.process_time() - start < 10  # 1 second on an idle processor
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_without_runs_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="there are no runs"):
        show_runs(tmp_path, RunsOptions())


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.4, "5s"), (60, "1m"), (7199, "1h"), (86400 * 40, "40d")]
)
def test_ages_have_one_unit(seconds: float, text: str):
    assert age_text(seconds) == text
