"""What a run knows, and how it survives: checkpoints are whole, verified, or refused.

A checkpoint is a file of plain containers and tensors that `torch.load(weights_only=True)` reads.
Beside it stands `<name>.sha256` with its digest, as `sha256sum` writes it; a checkpoint that was
copied without that file is read unverified.
"""

import hashlib
import io
import os
import pickle
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

import nlnet
from nlnet.distributed.ranks import gather_objects, is_main
from nlnet.errors import UserError

LAST = "last.pt"
PREVIOUS = "last.prev.pt"
BEST = "best.pt"


class DamagedCheckpoint(UserError):
    """A checkpoint that is not what was once written."""


@dataclass(frozen=True)
class Provenance:
    """Where weights come from."""

    config: str  # the whole config of the run, as YAML
    class_names: list[str]
    nlnet: str  # versions
    torch: str
    commit: str | None  # of the working tree that nlnet was imported from


def provenance(config: str, class_names: list[str]) -> Provenance:
    """The provenance of weights that this process makes."""
    root = Path(nlnet.__file__).parents[1]
    commit = None
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            commit = done.stdout.strip()
        except (OSError, subprocess.CalledProcessError):  # no git here, or nothing committed yet
            commit = None
    return Provenance(config, list(class_names), nlnet.__version__, str(torch.__version__), commit)


class Checkpoint(NamedTuple):
    """What a tool needs to start from a run's weights."""

    model: dict[str, Tensor]
    provenance: Provenance


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights of a checkpoint, on the CPU; raises UserError if it is damaged or none."""
    saved = _read(path)
    return Checkpoint(saved["model"], Provenance(**saved["provenance"]))


def _no_scaler() -> GradScaler:
    return GradScaler("cpu", enabled=False)


@dataclass
class Progress:
    """How far a run has come, over all ranks."""

    epoch: int = 0  # finished ones
    step: int = 0  # optimiser steps done in the epoch that is not finished
    global_step: int = 0  # optimiser steps done in the run
    best: float | None = None  # the highest validation metric: top1, or mean_ap
    asked: int = 0  # clips asked for in the run
    bad: int = 0  # of those, clips that could not be read
    bad_files: dict[str, str] = field(default_factory=dict)  # which files, and why
    totals: dict[str, float] = field(default_factory=dict)  # sums over the steps of this epoch
    history: list[dict[str, Any]] = field(default_factory=list)  # a record for each finished epoch


@dataclass
class TrainState:
    """All of a run that changes; saved whole, loaded whole."""

    model: nn.Module  # bare: not wrapped for several ranks
    optimizer: Optimizer
    provenance: Provenance
    scaler: GradScaler = field(default_factory=_no_scaler)
    progress: Progress = field(default_factory=Progress)

    def save(self, path: Path, previous: Path | None = None) -> None:
        """Write a checkpoint; a run killed at any instant leaves one that loads.

        Args:
            path: is replaced
            previous: where the file that stood at path goes, if it shall be kept

        Raises:
            UserError: it cannot be written; what stood at path is still there.
        """
        saved = {
            "model": self.model.state_dict(),
            "optimizer_name": type(self.optimizer).__name__,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            "provenance": asdict(self.provenance),
        }
        buffer = io.BytesIO()
        torch.save(saved, buffer)
        partial = path.with_name(f"{path.name}.partial")
        try:
            _write_synced(partial, buffer.getbuffer())
            if previous is not None and path.exists():
                _move(path, previous, _digests(path))
            _move(partial, path, [hashlib.sha256(buffer.getbuffer()).hexdigest()])
            _sync_folder(path.parent)
        except OSError as error:
            raise UserError(
                f"{path.parent}: cannot write {path.name} ({error.strerror}); the older checkpoint"
                " is intact: make room or set another output folder, then resume"
            ) from error
        finally:
            with suppress(OSError):  # what went wrong above is the news
                partial.unlink()

    def load(self, path: Path) -> None:
        """Take a checkpoint over, all of it or (where it raises) nothing.

        Raises:
            DamagedCheckpoint: the file is not what was written.
            UserError: it is missing or belongs to other classes, another network or optimiser.
        """
        saved = _read(path)
        _check_same_classes(path, saved["provenance"]["class_names"], self.provenance.class_names)
        _check_same_network(path, saved["model"], self.model.state_dict())
        own = type(self.optimizer).__name__
        if saved["optimizer_name"] != own:
            raise UserError(
                f"{path}: was written with {saved['optimizer_name']}, this run has {own};"
                " resume with the same optim or train in another folder"
            )
        try:
            self.optimizer.load_state_dict(saved["optimizer"])
        except ValueError as error:
            raise UserError(
                f"{path}: its optimiser has other parameter groups than this run; resume with the"
                " same optim.decay_* and trainer.freeze or train in another folder"
            ) from error
        self.model.load_state_dict(saved["model"])
        self.scaler.load_state_dict(saved["scaler"])
        self.progress = Progress(**saved["progress"])


def resume(state: TrainState, out_dir: Path) -> list[str]:
    """Load the newest whole checkpoint of a run's folder into the state, if there is one.

    Returns:
        lines to tell the user: what was refused, where the run goes on; none for a fresh start

    Raises:
        UserError: all checkpoints are damaged, or the ranks do not see the same one.
    """
    lines, refused = [], []
    for path in (out_dir / LAST, out_dir / PREVIOUS):
        if not path.exists():
            continue
        try:
            state.load(path)
        except DamagedCheckpoint as error:
            refused.append(str(error))
            continue
        done = state.progress
        lines = [*refused, f"resumes from {path.name}, after {done.global_step} steps"]
        break
    else:
        if refused:
            raise UserError(refused[0])
    if len(set(gather_objects(state.progress.global_step))) > 1:
        raise UserError(f"{out_dir}: the ranks see different checkpoints; use a shared file system")
    return lines


def save_on_main(state: TrainState, path: Path, previous: Path | None = None) -> None:
    """Rank 0 saves; every rank waits until the file is whole, and raises if that failed."""
    failure = None
    if is_main():
        try:
            state.save(path, previous)
        except UserError as error:
            failure = str(error)
    failure = gather_objects(failure)[0]
    if failure is not None:
        raise UserError(failure)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file by new content; a reader sees the old one or the new one, whole."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        _write_synced(partial, memoryview(data))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_synced(path: Path, data: memoryview) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digests(path: Path) -> list[str]:
    """Digests that the file at path may have: one, or two if its last save was cut short."""
    beside = _digest_path(path)
    return beside.read_text(errors="replace").split()[::2] if beside.exists() else []


def _move(source: Path, target: Path, digests: list[str]) -> None:
    """Rename a checkpoint; at each instant the file at target matches a digest beside it."""

    def write_digests(valid: list[str]) -> None:
        text = "".join(f"{digest}  {target.name}\n" for digest in valid)
        write_atomic(_digest_path(target), text.encode())

    write_digests([*digests, *_digests(target)])
    source.replace(target)
    write_digests(digests)


def _read(path: Path) -> dict[str, Any]:
    remedy = "remove it, or start from another checkpoint"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    digests = _digests(path)
    if digests and hashlib.sha256(data).hexdigest() not in digests:
        raise DamagedCheckpoint(
            f"{path}: is damaged, its SHA-256 is not the one in {_digest_path(path).name}; {remedy}"
        )
    try:
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedCheckpoint(f"{path}: is no checkpoint ({cause}); {remedy}") from error
    if not isinstance(saved, dict) or not {"model", "progress", "provenance"} <= saved.keys():
        raise UserError(f"{path}: is not a checkpoint of nlnet; {remedy}")
    return saved


def _check_same_classes(path: Path, saved: list[str], own: list[str]) -> None:
    if saved != own:
        differing = [
            f"{a!r} -> {b!r}" for a, b in zip_longest(saved, own, fillvalue="none") if a != b
        ]
        raise UserError(
            f"{path}: was trained on other classes, {len(differing)} differ, the first"
            f" {differing[0]}; resume with the same data.root and data.classes, or train in another"
            " folder with name=NAME"
        )


def _check_same_network(path: Path, saved: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    missing = [name for name in own if name not in saved]
    unknown = [name for name in saved if name not in own]
    reshaped = [name for name in own if name in saved and own[name].shape != saved[name].shape]
    problems = [
        f"{names[0]} (of {len(names)}) {what}"
        for names, what in (
            (missing, "is missing"),
            (unknown, "is unknown here"),
            (reshaped, "has another shape"),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{path}: belongs to another network: {', '.join(problems)};"
            " use the config that it was trained with or another output folder"
        )
