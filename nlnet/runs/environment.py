"""What made a result: the command, the versions and the machine, in environment.json."""

import json
import platform
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nlnet.checkpoint import current_provenance
from nlnet.errors import UserError
from nlnet.files import write_atomic

ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class Environment:
    """The circumstances of a result."""

    command: str  # as it was typed
    date: str
    nlnet: str  # versions
    torch: str
    python: str
    commit: str | None  # of the working tree that nlnet was imported from
    system: str
    device: str  # the name of the GPU, or cpu


def _current_environment() -> Environment:
    """Return the environment of this process."""
    provenance = current_provenance("", [])
    cuda = torch.cuda.is_available()
    return Environment(
        command=shlex.join(sys.orig_argv),
        date=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        nlnet=str(provenance.nlnet),
        torch=str(provenance.torch),
        python=platform.python_version(),
        commit=provenance.commit,
        system=platform.platform(),
        device=torch.cuda.get_device_name() if cuda else "cpu",
    )


def write_environment(folder: Path) -> None:
    """Write environment.json; raises UserError if it cannot be written."""
    text = json.dumps(asdict(_current_environment()), indent=2)
    write_atomic(folder / ENVIRONMENT, text.encode())


def read_environment(folder: Path) -> Environment | None:
    """Read environment.json; None if the folder has none. Raises UserError if it is damaged."""
    path = folder / ENVIRONMENT
    if not path.exists():
        return None
    try:
        return Environment(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); remove it") from error
