"""Run folders: which configuration a folder belongs to, and how two configurations differ."""

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nlnet.cli.dotted_keys import flatten
from nlnet.config import ModelConfig, RunConfig, read_run_tree, run_text
from nlnet.errors import UserError
from nlnet.files import LOCK, write_text

LENGTH = "trainer.epochs"
# Keys that change where and how fast a run computes, and what it does about faults, but not the
# result of a run without faults.
FREE_KEYS = (
    *("dist.num_procs", "dist.device", "dist.max_restarts", "dist.first_timeout", "dist.timeout"),
    "dist.strategy",
    *("data.num_workers", "data.root"),
    *("data.allow_bad", "data.allow_missing", "data.max_bad_share"),
    *("trainer.allocator", "trainer.fold_norms", "trainer.max_bad_steps", "trainer.max_minutes"),
    *("trainer.save_every_", "trainer.keep_checkpoints", "trainer.accept_changes"),
)
# Keys of a network that only training reads. The kinds of norm give the same output from the same
# tensors; where the tensors differ, loading the weights reports it.
TRAINING_KEYS = (
    "model.dropout",
    "model.norm",
    "model.zero_init_residual",
    "model.non_local.norm",
    "model.non_local.zero_init",
    "model.non_local.init",
)


def claim_folder(run: RunConfig, folder: Path) -> Path:
    """Write a run's config.yaml to its folder, and return the path of the file.

    A folder that holds a log belongs to the run that wrote it. The same run may continue in it, and
    it may become longer: `trainer.epochs` may rise. `trainer.accept_changes` accepts every change.

    Raises UserError with every difference if the folder belongs to a run with another
    configuration.
    """
    path = folder / "config.yaml"
    if path.exists() and (folder / "log.txt").exists():
        found = flatten(read_run_tree(path.read_text(), str(path)))
        wanted = flatten(OmegaConf.to_container(OmegaConf.structured(run)))
        longer = (LENGTH,) if extension(found, wanted) else ()
        changes = differences(found, wanted, free=(*FREE_KEYS, *longer))
        if changes and not run.trainer.accept_changes:
            raise UserError(
                f"{folder} holds a run with another configuration ({', '.join(changes)}); "
                "choose another folder with name=NAME, remove this one, or go on with the new "
                "configuration by trainer.accept_changes=true"
            )
    write_text(path, run_text(run))
    return path


def extension(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """`trainer.epochs old -> new` if the flat config `wanted` makes the run longer; else None."""
    old, new = found.get(LENGTH), wanted.get(LENGTH)
    if isinstance(old, int) and isinstance(new, int) and new > old:
        return f"{LENGTH} {old} -> {new}"
    return None


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder; the system ends that with the process.

    Raises UserError, with the host and the number of the process, if another one trains there, and
    if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # children of a fork do not keep it
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise UserError(
                f"{folder}: {file.read() or 'another process'} trains here now; wait until it has "
                "ended, or choose another folder with name=NAME"
            ) from error
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        try:
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); free disk space, or choose "
                "another folder with name=NAME"
            ) from error
        yield


def network_differences(config: str, model: ModelConfig) -> list[str]:
    """The differences that make a network's output another one.

    Keys that only training reads do not count. Keys of non-local blocks do not count if neither
    network has blocks.

    Args:
        config: text of the config.yaml of the run that trained the network.
        model: the network that is built now.
    """
    found = _output_keys(read_run_tree(config, "the file of weights"))
    wanted = _output_keys({"model": OmegaConf.to_container(OmegaConf.structured(model))})
    stages = [f"model.non_local.res{stage}" for stage in (2, 3, 4, 5)]
    has_blocks = any(keys[stage] for keys in (found, wanted) for stage in stages)
    return differences(found, wanted, free=() if has_blocks else ("model.non_local.",))


def _output_keys(run: Any) -> dict[str, Any]:
    """The keys of a run that its network's output depends on."""
    return {
        key: value
        for key, value in flatten(run).items()
        if key.startswith("model.") and key not in TRAINING_KEYS
    }


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], free: tuple[str, ...] = ()
) -> list[str]:
    """`key old -> new` for every key whose values differ, without keys that begin as in `free`."""
    return [
        f"{key} {found.get(key)} -> {wanted.get(key)}"
        for key in sorted({**found, **wanted})
        if found.get(key) != wanted.get(key) and not key.startswith(free)
    ]
