"""The state of a training run: saved completely, loaded completely or not at all."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from nlnet.checkpoint import (
    Checkpoint,
    Progress,
    Provenance,
    RunData,
    Training,
    read_checkpoint,
    saved_paths,
    write_checkpoint,
)
from nlnet.distributed.ranks import gather_objects, on_main
from nlnet.errors import UserError
from nlnet.files import DamagedFile, set_aside
from nlnet.trainer.optim import load_optimizer
from nlnet.trainer.sharding import ShardedNetwork


def _no_scaler() -> GradScaler:
    return GradScaler("cpu", enabled=False)


@dataclass
class TrainState:
    """Everything in a run that changes."""

    model: nn.Module  # not wrapped for several ranks
    optimizer: Optimizer
    provenance: Provenance
    scaler: GradScaler = field(default_factory=_no_scaler)
    progress: Progress = field(default_factory=Progress)
    resumed: Provenance | None = None  # of the checkpoint from which the run goes on
    data: RunData | None = None  # on which the run is trained; after `load`, that of the file
    average: AveragedModel | None = None  # of the weights over the steps
    # If each rank has only its rows of the parameters of `model`, `optimizer` and `average`: the
    # network that has them all.
    sharding: ShardedNetwork | None = None

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated: the averaged one, if there is one."""
        return self.model if self.average is None else self.average.module

    def update_average(self) -> None:
        """Include the weights after a step in their average, if there is one."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def whole(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within, this rank has all parameters of `model` or `evaluated`. All ranks must enter."""
        return nullcontext() if self.sharding is None else self.sharding.whole(model)

    def checkpoint(self) -> Checkpoint:
        """Return the state as it is written to disk. The tensors are shared, not copied.

        If the ranks have rows of the parameters, all ranks must call it; rank 0 gets the state.
        """
        model = self.model.state_dict()
        average = None if self.average is None else self.average.state_dict()
        if self.sharding is None:
            optimizer = self.optimizer.state_dict()
        else:
            model = self.sharding.gather_state(model)
            average = None if average is None else self.sharding.gather_state(average, "module.")
            optimizer = self.sharding.gather_optimizer(self.optimizer, self.model)
        training = Training(
            self.progress,
            type(self.optimizer).__name__,
            optimizer,
            self.scaler.state_dict(),
            self.data,
        )
        return Checkpoint(model, self.provenance, training, average)

    def load(self, path: Path, *, other_names: bool = False) -> None:
        """Load a checkpoint. If it raises, the state is unchanged.

        With `other_names`, the classes may have other names, but not another number.

        Raises:
            DamagedFile: the content of the file is not what was written.
            UserError: the file is missing, or it belongs to other classes, another network or
                another optimizer.
        """
        saved = read_checkpoint(path)
        training = saved.training
        if training is None:
            raise UserError(
                f"{path}: holds weights without the state of a run; start from it with weights=PATH"
            )
        if not other_names:
            names = self.provenance.class_names or []
            _check_same_classes(path, saved.provenance.class_names or [], names)
        _check_same_network(path, saved.model, self.model.state_dict())
        average = None if self.average is None else self.average.state_dict()
        if (average is None) != (saved.average is None):
            has = "no averaged weights" if saved.average is None else "averaged weights"
            raise UserError(
                f"{path}: has {has}, unlike this run; resume with the same setting, or train in"
                " another folder"
            )
        _check_same_network(path, saved.average or {}, average or {})
        own = type(self.optimizer).__name__
        if training.optimizer_name != own:
            raise UserError(
                f"{path}: was written with {training.optimizer_name}, this run has {own};"
                " resume with the same optimizer, or train in another folder"
            )
        try:
            load_optimizer(self.optimizer, training.optimizer)
        except ValueError as error:
            raise UserError(
                f"{path}: its optimizer has other parameter groups than this run; resume with the"
                " same weight decay of norms and biases and the same frozen parts, or train in"
                " another folder"
            ) from error
        self.model.load_state_dict(saved.model)
        if self.average is not None and saved.average is not None:
            self.average.load_state_dict(saved.average)
        self.scaler.load_state_dict(training.scaler)
        self.progress = training.progress
        self.resumed = saved.provenance
        self.data = training.data


def resume(state: TrainState, out_dir: Path, *, other_names: bool = False) -> list[str]:
    """Load the newest intact checkpoint of a run folder, if there is one.

    Damaged newer ones are renamed to `<name>.damaged`. `other_names`: see `TrainState.load`.

    Returns:
        lines for the user: which checkpoints are damaged, and where the run continues; an empty
        list for a run without checkpoints

    Raises:
        UserError: all checkpoints are damaged, or the ranks see different checkpoints.
    """
    lines: list[str] = []
    damaged: dict[Path, str] = {}
    for path in saved_paths(out_dir):
        try:
            state.load(path, other_names=other_names)
        except DamagedFile as error:
            damaged[path] = str(error)
            continue
        lines = [f"resumes from {path.name}, after {state.progress.global_step} steps"]
        break
    else:
        if damaged:
            raise UserError(next(iter(damaged.values())))
    if len(set(gather_objects(state.progress.global_step))) > 1:
        raise UserError(f"{out_dir}: the ranks see different checkpoints; use a shared file system")
    aside = on_main(lambda: [f"{damaged[p]}: it is now {set_aside(p).name}" for p in damaged])
    return [*aside, *lines]


def save_on_main(state: TrainState, path: Path) -> None:
    """Save on rank 0. Every rank waits until the file is complete, and raises if that failed."""
    checkpoint = state.checkpoint()
    on_main(lambda: write_checkpoint(path, checkpoint))


def _check_same_classes(path: Path, saved: Sequence[str], own: Sequence[str]) -> None:
    if list(saved) != list(own):
        differing = [
            f"{a!r} -> {b!r}" for a, b in zip_longest(saved, own, fillvalue="none") if a != b
        ]
        raise UserError(
            f"{path}: was trained on other classes, {len(differing)} differ, the first"
            f" {differing[0]}; resume with the same data and class list, or train in another"
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
