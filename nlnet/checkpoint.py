"""What a checkpoint is, and the only code that reads and writes one.

A checkpoint is a file of plain containers and tensors, which `torch.load(weights_only=True)`
reads. Its SHA-256 is in `<name>.sha256` beside it (see nlnet.files).
"""

import io
import pickle
import struct
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nlnet
from nlnet.errors import UserError
from nlnet.files import DamagedFile, read_verified, write_verified

# Files of a run folder.
LAST = "last.pt"  # the newest state of the run
PREVIOUS = "last.prev.pt"  # the state before it; older ones are last.prev2.pt, last.prev3.pt, ...
BEST = "best.pt"  # the state with the best validation score

AVERAGED = "model_ema"  # key of the averaged weights in a checkpoint
REMEDY = "remove it, or use an intact copy"
# Exceptions of the unpickler for content that is not a pickle; their texts do not help a user.
NO_PICKLE = (LookupError, TypeError, AttributeError, struct.error)
UNREADABLE = (*NO_PICKLE, pickle.UnpicklingError, RuntimeError, EOFError, ValueError)


@dataclass(frozen=True)
class Provenance:
    """Where weights come from. A field is None if the file does not say it."""

    config: str | None = None  # the complete config of the run, as YAML
    class_names: list[str] | None = None
    nlnet: str | None = None  # versions
    torch: str | None = None
    commit: str | None = None  # of the working tree that nlnet was imported from
    # The fields below are of weights that were converted from another code base.
    source: str | None = None  # path, URL or public name of the converted file
    format: str | None = None  # its format, a name in nlnet.weights.sources.all.FORMATS
    frame_kernels: bool = True  # its convolution kernels have a time axis


@dataclass(frozen=True)
class EpochRecord:
    """The results of one finished epoch."""

    epoch: int  # counted from 1
    global_step: int  # optimizer steps of the run up to the end of this epoch
    seconds: float  # time spent on training steps
    clips_per_second: float
    data_wait: float  # percent of the time spent waiting for data
    train: dict[str, float]  # training metrics
    val: dict[str, float]  # validation metrics; empty if the epoch was not evaluated
    main: str | None = None  # the metric in `val` that selects the best epoch

    @property
    def score(self) -> float | None:
        """The value of the main validation metric; None if the epoch was not evaluated."""
        return None if self.main is None else self.val[self.main]


@dataclass
class Progress:
    """How far a run has come, over all ranks."""

    epoch: int = 0  # number of finished epochs
    step: int = 0  # optimizer steps done in the current epoch
    global_step: int = 0  # optimizer steps done in the run
    best: float | None = None  # the highest value of the main validation metric
    asked: int = 0  # clips requested in the run
    bad: int = 0  # requested clips that could not be read
    skipped: int = 0  # steps whose loss or gradient was not finite
    skipped_in_a_row: int = 0  # up to now
    bad_files: dict[str, str] = field(default_factory=dict)  # unreadable file -> cause
    totals: dict[str, float] = field(default_factory=dict)  # sums over the steps of this epoch
    history: list[EpochRecord] = field(default_factory=list)  # one record per finished epoch


@dataclass(frozen=True)
class SplitFacts:
    """What a checkpoint says about the videos of a split."""

    videos: int
    sha256: str  # of the list of names, classes and sizes, see nlnet.runs.video_list
    manifest: str | None = None  # the SHA-256 of the manifest, if the split was read from one


@dataclass(frozen=True)
class RunData:
    """The data on which a run is trained, and how they are divided into steps."""

    splits: dict[str, SplitFacts]  # `train` and `val`
    batch_size: int  # clips of a step
    steps_per_epoch: int


@dataclass(frozen=True)
class Training:
    """The part of a checkpoint that only a resumed run needs."""

    progress: Progress
    optimizer_name: str  # class name in torch.optim
    optimizer: dict[str, Any]  # as returned by torch's Optimizer.state_dict()
    scaler: dict[str, Any]  # as returned by torch's GradScaler.state_dict()
    data: RunData | None = None  # None in files of older versions


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file."""

    model: dict[str, Tensor]
    provenance: Provenance
    training: Training | None = None  # None for converted weights
    average: dict[str, Tensor] | None = None  # state of the averaged weights, if the run has them


def current_provenance(config: str, class_names: list[str]) -> Provenance:
    """Return the provenance of weights that this process trains."""
    root = Path(nlnet.__file__).parents[1]
    commit = None
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            commit = done.stdout.strip()
        except (OSError, subprocess.CalledProcessError):  # no git, or no commit yet
            commit = None
    return Provenance(config, list(class_names), nlnet.__version__, str(torch.__version__), commit)


def last_paths(folder: Path, count: int) -> list[Path]:
    """The files of the newest states of a run, the newest first."""
    older = [f"{Path(PREVIOUS).stem}{i}.pt" for i in range(2, count)]
    return [folder / name for name in [LAST, PREVIOUS, *older][:count]]


def saved_paths(folder: Path) -> list[Path]:
    """Those of the files of `last_paths` that exist, the newest first."""
    stem = Path(PREVIOUS).stem
    numbers = [path.stem.removeprefix(stem) for path in folder.glob(f"{stem}*.pt")]
    most = max((int(number) for number in numbers if number.isdecimal()), default=1)
    return [path for path in last_paths(folder, most + 1) if path.exists()]


def write_checkpoint(path: Path, checkpoint: Checkpoint, older: Sequence[Path] = ()) -> None:
    """Write a checkpoint. Killed at any instant, it leaves a checkpoint that loads.

    Args:
        path: the file to replace
        checkpoint: its new content
        older: paths in the same folder for the old files, the newest first (see `write_verified`)

    Raises:
        UserError: the file cannot be written; the old files are at `path` or in `older`.
    """
    saved: dict[str, Any] = {"model": checkpoint.model}
    if checkpoint.average is not None:
        saved[AVERAGED] = checkpoint.average
    if checkpoint.training is not None:
        saved["optimizer_name"] = checkpoint.training.optimizer_name
        saved["optimizer"] = checkpoint.training.optimizer
        saved["scaler"] = checkpoint.training.scaler
        saved["progress"] = asdict(checkpoint.training.progress)
        if checkpoint.training.data is not None:
            saved["data"] = asdict(checkpoint.training.data)
    saved["provenance"] = _provenance_to_dict(checkpoint.provenance)
    write_verified(path, to_bytes(saved), older)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of nlnet. The tensors are on the CPU.

    Raises:
        DamagedFile: the content of the file is not what was written.
        UserError: the file is missing, or it is not a checkpoint of nlnet.
    """
    saved = from_bytes(read_verified(path), path)
    if not isinstance(saved, dict) or not isinstance(saved.get("model"), dict):
        raise UserError(f"{path}: is not a checkpoint of nlnet; {REMEDY}")
    return to_checkpoint(saved, path)


def to_checkpoint(saved: Mapping[str, Any], path: Path) -> Checkpoint:
    """Convert the containers of a file to a Checkpoint.

    Raises UserError, naming `path`, if an entry is missing or unknown.
    """
    try:
        training = None
        if "progress" in saved:
            training = Training(
                _to_progress(saved["progress"]),
                saved["optimizer_name"],
                saved["optimizer"],
                saved["scaler"],
                _to_run_data(saved["data"]) if "data" in saved else None,
            )
        known = saved.get("provenance", {})
        names = [entry.name for entry in fields(Provenance) if entry.name in known]
        provenance = Provenance(**{name: known[name] for name in names})
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: is not a checkpoint of this version of nlnet ({_first_line(error)});"
            " use the version that wrote it"
        ) from error
    return Checkpoint(dict(saved["model"]), provenance, training, saved.get(AVERAGED))


def to_bytes(content: object) -> bytes:
    """Serialize containers and tensors with torch.save."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes, path: Path) -> object:
    """Deserialize the content of the file at `path`, on the CPU, without running code from it.

    Raises DamagedFile if it is not a complete file of torch.save, or holds other objects than
    tensors and plain containers.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise DamagedFile(
            f"{path}: not a safe or whole PyTorch file ({_cause(error)}); {REMEDY}"
        ) from error


def _provenance_to_dict(provenance: Provenance) -> dict[str, Any]:
    """Leave out the fields of converted weights that have their default, as old files do."""
    optional = {"source": None, "format": None, "frame_kernels": True}
    return {
        name: value
        for name, value in asdict(provenance).items()
        if name not in optional or value != optional[name]
    }


def _to_progress(saved: Mapping[str, Any]) -> Progress:
    """Convert saved progress.

    Old records do not name their main metric: it is the first one. They count epochs from 0: the
    place of a record says which epoch it is.
    """
    history = [
        EpochRecord(**{"main": next(iter(record["val"]), None), **record, "epoch": epoch})
        for epoch, record in enumerate(saved["history"], start=1)
    ]
    return Progress(**{**saved, "history": history})


def _to_run_data(saved: Mapping[str, Any]) -> RunData:
    splits = {name: SplitFacts(**facts) for name, facts in saved["splits"].items()}
    return RunData(**{**saved, "splits": splits})


def _cause(error: Exception) -> str:
    """Describe in one line why torch refused a file."""
    if isinstance(error, NO_PICKLE):
        return "it is no pickle"
    unsupported = [line.strip() for line in str(error).splitlines() if "Unsupported" in line]
    return (unsupported or [_first_line(error)])[0]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
