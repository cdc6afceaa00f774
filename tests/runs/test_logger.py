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

from nlnet.checkpoint import Progress
from nlnet.clip import Failure
from nlnet.errors import UserError
from nlnet.runs.lines import MIN_BAR
from nlnet.runs.logger import RunLogger, progress_bar
from nlnet.runs.record import Recorder, StepRecord
from nlnet.trainer.metrics import Metrics

TRAIN = {"loss", "lr", "top1", "top5", "grad_norm", "clips_per_second", "data_wait"}
VAL = {"top1": 50.0, "top5": 75.0, "mean_class": 25.0}
PROGRAM = Path(__file__).parents[1] / "trainer" / "tiny_run.py"


def take_steps(logger: RunLogger, recorder: Recorder, count: int) -> None:
    for _ in range(count):
        record = StepRecord(24.0, 6.0, 9.0, 12.0, seconds=0.5, waited=0.125)
        logger.step(recorder.finish_step(record, lr=0.1, grad_norm=2.5))


def end_epoch(logger: RunLogger, recorder: Recorder, top1: float) -> None:
    logger.epoch(recorder.finish_epoch({"top1": top1, "top5": top1 + 10}, "top1"))
    logger.metrics(recorder.progress)


def test_each_epoch_has_a_line_and_a_record(tmp_path: Path, capsys):
    progress = Progress()
    missing = {"train": 3, "val": 0}
    with RunLogger(tmp_path / "new", total_steps=8, missing=missing) as logger:
        recorder = Recorder(progress, total_steps=8, steps_per_epoch=4)
        for top1 in (50.0, 25.0):
            take_steps(logger, recorder, 4)
            end_epoch(logger, recorder, top1)
        progress.bad, progress.bad_files = 1, {"a.mp4": "empty"}
        logger.metrics(progress)
        logger.done(progress)
    log = (tmp_path / "new" / "log.txt").read_text().splitlines()
    expected = (
        "epoch 1/2  0:00:02  24.0 clips/s  data wait 25%"
        "  |  train: loss 2.0000  top1 50.00%  top5 75.00%"
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


def test_without_a_terminal_a_line_comes_each_tenth_of_an_epoch(
    tmp_path: Path, capsys, monkeypatch
):
    clock = iter(range(0, 10**6, 3))  # each call returns 3 seconds more
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with RunLogger(tmp_path, total_steps=80) as logger:
        take_steps(logger, Recorder(Progress(), total_steps=80, steps_per_epoch=40), 40)
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r"step (\d+)/40", line)[1] for line in lines] == [
        str(i) for i in range(4, 41, 4)
    ]
    assert re.fullmatch(
        r"epoch 1/2  step 4/40  loss 2\.0000  top1 50\.00%  24\.0 clips/s  data wait 25%  lr 0\.1"
        r"  \d:\d\d:\d\d left",
        lines[0],
    )


def test_short_epochs_have_no_lines_for_steps(tmp_path: Path, capsys):
    with RunLogger(tmp_path, total_steps=80) as logger:
        take_steps(logger, Recorder(Progress(), total_steps=80, steps_per_epoch=40), 40)
    assert capsys.readouterr().out == ""


def test_unreadable_files_are_named(tmp_path: Path):
    with RunLogger(tmp_path, total_steps=1) as logger:
        logger.failures([Failure("a/b.mp4", "moov atom not found")])
    assert "cannot read a/b.mp4: moov atom not found" in (tmp_path / "log.txt").read_text()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"):
        RunLogger(tmp_path / "file", total_steps=1)


def test_a_full_disk_is_named(tmp_path: Path):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    named = r"log\.txt: cannot be written \(No space left on device\)"
    with pytest.raises(UserError, match=named), RunLogger(tmp_path, total_steps=1) as logger:
        logger.say("a line")


def test_other_ranks_are_silent(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("nlnet.runs.logger.is_main", lambda: False)
    with RunLogger(tmp_path / "none", total_steps=4) as logger:
        recorder = Recorder(Progress(), total_steps=4, steps_per_epoch=4)
        logger.config("a: 1")
        logger.clips(torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8))
        take_steps(logger, recorder, 4)
        end_epoch(logger, recorder, 1.0)
        logger.say("hello")
    assert not (tmp_path / "none").exists()
    assert capsys.readouterr().out == ""


def test_a_progress_bar_yields_all_items():
    assert list(progress_bar(range(5), "test")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_a_terminal_shows_a_readable_bar_and_short_rows(tmp_path: Path, columns: int):
    """A training in a pseudo-terminal; every row is compared with the width of the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, str(PROGRAM), str(tmp_path), "{}"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b""
        while chunk := read(ours):
            shown += chunk
    os.close(ours)
    rows = [row for row in re.split(r"[\r\n]+", shown.decode()) if row.strip()]
    assert rows and all(len(row) < columns for row in rows)
    bars = [bar for row in rows if (bar := re.search(r"\|(.*)\|", row))]
    assert bars and all(len(bar[1]) >= MIN_BAR for bar in bars)
    state = r"epoch 1/2 +\d+%\|.*\| loss \d\.\d+  top1 [\d.]+%  0:00:\d\d left"
    state += r"  \d+ clips/s  data wait" if columns > 80 else ""
    assert any(re.match(state, row) for row in rows)
    epochs = [i for i, row in enumerate(rows) if re.match(r"epoch \d/2  val: top1", row)]
    assert len(epochs) == 2
    for i in epochs:
        assert re.match(r" +train: loss \d\.\d{4}  top1 [\d.]+%", rows[i + 1])
    log = (tmp_path / "log.txt").read_text()
    assert "clips/s" in log and "mean_class" in log and len(log.splitlines()) == 2


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.fixture
def board(tiny: ModuleType, tmp_path: Path) -> Iterator[str]:
    """Yield the address of a TensorBoard server that shows a run."""
    sizes = {"total_steps": 8, "steps_per_epoch": 4}
    with RunLogger(tmp_path, total_steps=8) as logger:
        logger.config("name: tiny")
        # This attempt dies at step 7, after its last checkpoint at step 4.
        take_steps(logger, Recorder(Progress(), **sizes), 7)
    state = tiny.make_state()
    with RunLogger(tmp_path, total_steps=8, start_step=4) as logger:
        recorder = Recorder(Progress(epoch=1, global_step=4), **sizes)
        take_steps(logger, recorder, 4)
        end_epoch(logger, recorder, 0.75)
    with RunLogger(tmp_path / "whole", total_steps=8) as logger:
        tiny.fit(
            state,
            state.model,
            tiny.make_settings(),
            loader_at=tiny.loader_at(),
            validate=lambda: Metrics(VAL, "top1"),
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
    """Return the answer of the server as soon as it contains `until`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                text = answer.read().decode()
            if until in text:
                return text
        except OSError:  # the server has not started yet
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
    assert [step for _, step, _ in points] == list(range(1, 9)), (
        "points of the dead attempt are still there"
    )
    assert "clips/0" in ask(f"{board}/images/tags", "clips/3")
    assert "config" in ask(f"{board}/text/tags", "config")
