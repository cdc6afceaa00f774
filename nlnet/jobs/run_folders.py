"""The runs below a folder: what they are, how far they are, and whether they still run.

This module must not load torch: a list of runs has to appear at once.
"""

import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nlnet.cli.dotted_keys import flatten
from nlnet.files import COMMAND, LOCK
from nlnet.runs.outcome import RESUMES

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, process
TAIL = 4096  # bytes of a log that are read


@dataclass(frozen=True)
class ListedRun:
    """A run folder. Accuracies are in percent."""

    folder: Path
    name: str  # of the folder, seen from the folder that was searched
    status: str
    epoch: int  # finished epochs
    epochs: int | None  # of the whole run; None if its length is in steps
    metric: str  # the main metric of the validation; "" before the first one
    best: float | None
    protocol: str  # of the validation, clips x crops, as in 1x1
    age: float  # seconds since the last line of its log
    command: str  # "" for a run of an older version
    last_line: str  # of its log
    config: Mapping[str, Any]  # dotted keys

    @property
    def progress(self) -> str:
        """Finished epochs and their number, `3/10`."""
        return f"{self.epoch}" if self.epochs is None else f"{self.epoch}/{self.epochs}"

    @property
    def score(self) -> str:
        """The best validation score with its protocol, `top1 63.25 (1x1)`."""
        if self.best is None:
            return "-"
        return f"{self.metric} {self.best:.2f} ({self.protocol})"


def find_runs(root: Path) -> Iterator[ListedRun]:
    """The runs of a folder and its subfolders, in the order of their names."""
    for path, folders, files in os.walk(root):
        folders.sort()
        if "config.yaml" in files and {"log.txt", LOCK} & set(files):
            run = read_listed_run(Path(path), root)
            if run is not None:
                yield run


def read_listed_run(folder: Path, root: Path) -> ListedRun | None:
    """Read a run folder; None if its config.yaml is not one of a run."""
    config = _read_config(folder)
    if config is None:
        return None
    metrics = _read_metrics(folder)
    done: list[Mapping[str, Any]] = metrics.get("epochs", [])
    main = metrics.get("main_metric", "")
    log, command = folder / "log.txt", folder / COMMAND
    last_line = _last_line(log)
    newest = log if log.exists() else folder / "config.yaml"
    relative = os.path.relpath(folder, root)
    return ListedRun(
        folder=folder,
        name=folder.name if relative == "." else relative,
        status=_status(folder, config, done, last_line),
        epoch=len(done),
        epochs=config.get("trainer.epochs"),
        metric=main,
        best=metrics.get(f"best_{main}"),
        protocol=f"{config.get('data.val_views.num_clips')}x{config.get('data.val_views.num_crops')}",
        age=max(time.time() - newest.stat().st_mtime, 0.0),
        command=command.read_text().strip() if command.exists() else "",
        last_line=last_line,
        config=config,
    )


def holder(folder: Path) -> int | None:
    """The process that trains in a folder, as the system says; None if there is none.

    A process that has ended holds no lock. 0 is a process of another machine.
    """
    try:
        with (folder / LOCK).open("rb") as file:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:  # no lock file, or a file system without locks
        return None
    return None if found[0] == fcntl.F_UNLCK else max(found[4], 0)


def _status(
    folder: Path, config: Mapping[str, Any], done: list[Mapping[str, Any]], last_line: str
) -> str:
    if holder(folder) is not None:
        return RUNNING
    epochs, steps = config.get("trainer.epochs"), config.get("trainer.max_steps")
    if epochs is not None and len(done) >= epochs:
        return FINISHED
    if steps is not None and done and done[-1]["global_step"] >= steps:
        return FINISHED
    return STOPPED if last_line.endswith(RESUMES) else FAILED


def _read_config(folder: Path) -> dict[str, Any] | None:
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        tree = yaml.load((folder / "config.yaml").read_text(), loader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return flatten(tree) if isinstance(tree, Mapping) and "trainer" in tree else None


def _read_metrics(folder: Path) -> dict[str, Any]:
    """The content of metrics.json; empty if there is none that is whole."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _last_line(log: Path) -> str:
    """The last line of a log without its time."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1][20:] if lines else ""
