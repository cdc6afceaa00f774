import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nlnet.checkpoint import EpochRecord, Progress
from nlnet.clip import Failure
from nlnet.errors import UserError
from nlnet.runs.logger import RunLogger, StepRecord, progress_bar

TRAIN = {"loss", "lr", "top1", "top5", "grad_norm", "clips_per_second", "data_wait"}


def take_steps(logger: RunLogger, progress: Progress, count: int) -> None:
    for _ in range(count):
        record = StepRecord(24.0, 6.0, 9.0, 12.0, seconds=0.5, waited=0.125)
        progress.step += 1
        progress.global_step += 1
        record.add_to(progress.totals)
        logger.step(progress, record, lr=0.1, grad_norm=2.5)


def end_epoch(logger: RunLogger, progress: Progress, top1: float) -> None:
    progress.history.append(
        EpochRecord(
            epoch=progress.epoch,
            global_step=progress.global_step,
            seconds=3725.0,
            clips_per_second=24.0,
            data_wait=25.0,
            train={"loss": 2.0},
            val={"top1": top1, "top5": top1 + 10},
            main="top1",
        )
    )
    progress.best = max(progress.best or 0.0, top1)
    progress.epoch, progress.step, progress.totals = progress.epoch + 1, 0, {}
    logger.epoch(progress)


def test_each_epoch_has_its_line_and_its_record(tmp_path: Path, capsys):
    progress = Progress()
    missing = {"train": 3, "val": 0}
    sizes = {"total_steps": 8, "steps_per_epoch": 4}
    with RunLogger(tmp_path / "new", **sizes, missing=missing) as logger:
        for top1 in (50.0, 25.0):
            take_steps(logger, progress, 4)
            end_epoch(logger, progress, top1)
        progress.bad, progress.bad_files = 1, {"a.mp4": "empty"}
        logger.metrics(progress)
        logger.done(progress)
    log = (tmp_path / "new" / "log.txt").read_text().splitlines()
    expected = (
        "epoch 1/2  1:02:05  24.0 clips/s  data wait 25%  |  train: loss 2.0000"
        "  |  val: top1 50.00%  top5 60.00%  |  0:00:00 left"
    )
    assert log[0].endswith(expected)
    assert "left" not in log[1]
    assert "best epoch 1: top1 50.00%  top5 60.00%" in log[3]
    assert "1 of 0 clips could not be read, from 1 files" in log[2]
    assert expected in capsys.readouterr().out
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert (metrics["best_top1"], metrics["best_top5"], metrics["best_epoch"]) == (50.0, 60.0, 1)
    assert metrics["unreadable"]["files"] == {"a.mp4": "empty"}
    assert metrics["missing"] == missing
    assert [record["val"]["top1"] for record in metrics["epochs"]] == [50.0, 25.0]


def test_lines_come_each_tenth_of_an_epoch(tmp_path: Path, capsys, monkeypatch):
    """Where there is no terminal; with what is left of the whole run."""
    clock = iter(range(0, 10**6, 3))  # each look at the clock is 3 seconds later
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with RunLogger(tmp_path, total_steps=80, steps_per_epoch=40) as logger:
        take_steps(logger, Progress(), 40)
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r"step (\d+)/40", line)[1] for line in lines] == [
        str(i) for i in range(4, 41, 4)
    ]
    assert lines[0] == (
        "epoch 1/2  step 4/40  loss 2.0000  top1 50.00%  24.0 clips/s  data wait 25%  lr 0.1"
        "  0:04:45 left"  # 15 seconds for 4 steps, 76 to go
    )


def test_short_epochs_are_not_drowned_in_lines(tmp_path: Path, capsys):
    with RunLogger(tmp_path, total_steps=80, steps_per_epoch=40) as logger:
        take_steps(logger, Progress(), 40)
    assert capsys.readouterr().out == ""


def test_unreadable_files_are_named(tmp_path: Path):
    with RunLogger(tmp_path, total_steps=1, steps_per_epoch=1) as logger:
        logger.failures([Failure("a/b.mp4", "moov atom not found")])
    assert "cannot read a/b.mp4: moov atom not found" in (tmp_path / "log.txt").read_text()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"):
        RunLogger(tmp_path / "file", total_steps=1, steps_per_epoch=1)


def test_other_ranks_are_silent(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("nlnet.runs.logger.is_main", lambda: False)
    progress = Progress()
    with RunLogger(tmp_path / "none", total_steps=4, steps_per_epoch=4) as logger:
        logger.config("a: 1")
        logger.clips(torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8))
        take_steps(logger, progress, 4)
        end_epoch(logger, progress, 1.0)
        logger.say("hello")
    assert not (tmp_path / "none").exists()
    assert capsys.readouterr().out == ""


def test_a_progress_bar_passes_everything_on():
    assert list(progress_bar(range(5), "test")) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_a_terminal_has_a_bar_of_the_whole_run(tmp_path: Path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    program = Path(__file__).with_name("tiny_run.py")
    command = [sys.executable, str(program), str(tmp_path), "{}"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        while chunk := read(ours):
            shown += chunk
    os.close(ours)
    text = shown.decode()
    state = (
        r"epoch 1/2 +\d+%\|.*\| [\d:?]+ left, loss \d\.\d+  top1 [\d.]+%  [\d.]+ clips/s  data wait"
    )
    assert re.search(state, text)
    assert "epoch 2/2  0:00:0" in text


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.fixture
def board(tiny: ModuleType, tmp_path: Path) -> Iterator[str]:
    """The address of a TensorBoard server that shows a run."""
    sizes = {"total_steps": 8, "steps_per_epoch": 4}
    with RunLogger(tmp_path, **sizes) as logger:
        logger.config("name: tiny")
        take_steps(logger, Progress(), 7)  # goes on after its last checkpoint, at step 4, and dies
    state = tiny.make_state()
    with RunLogger(tmp_path, **sizes, start_step=4) as logger:
        progress = Progress(epoch=1, global_step=4)
        take_steps(logger, progress, 4)
        end_epoch(logger, progress, 0.75)
    with RunLogger(tmp_path / "whole", **sizes) as logger:
        tiny.fit(
            state,
            state.model,
            tiny.make_recipe(),
            loader_at=tiny.loader_at(),
            validate=lambda: {"top1": 50.0, "top5": 75.0, "mean_class": 25.0},
            logger=logger,
            out_dir=tmp_path / "whole",
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        yield f"http://127.0.0.1:{port}/data/plugin"
        server.terminate()


def ask(address: str, until: str) -> str:
    """The answer of the server, once it is up and has read the files."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                text = answer.read().decode()
            if until in text:
                return text
        except OSError:  # not up yet
            pass
        time.sleep(0.3)
    raise AssertionError(f"no answer with {until!r} at {address}")


@pytest.mark.slow
def test_tensorboard_shows_the_run(board: str):
    tags = json.loads(ask(f"{board}/scalars/tags", "val/mean_class"))
    assert set(tags["whole/tensorboard"]) == {f"train/{name}" for name in TRAIN} | {
        "val/top1",
        "val/top5",
        "val/mean_class",
    }
    address = f"{board}/scalars/scalars?run=whole/tensorboard&tag=train/loss"
    points = json.loads(ask(address, "["))
    assert [step for _, step, _ in points] == list(range(1, 9))
    address = f"{board}/scalars/scalars?run=tensorboard&tag=train/loss"
    points = json.loads(ask(address, "["))
    assert [step for _, step, _ in points] == list(range(1, 9)), "points of the dead attempt remain"
    assert "clips/0" in ask(f"{board}/images/tags", "clips/3")
    assert "config" in ask(f"{board}/text/tags", "config")
