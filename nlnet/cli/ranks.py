"""The ranks of a tool: processes that run the same file with a resolved configuration."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from nlnet.checks import section
from nlnet.distributed.attempts import ERROR_FILE, TRANSIENT
from nlnet.distributed.launch import STOPPED, launch
from nlnet.errors import UsageError, UserError

RESOLVED = "--resolved"  # `tool.py --resolved PATH` runs one rank of the run in PATH, a config.yaml


def is_rank() -> bool:
    """Whether a launcher (this one, torchrun, SLURM) made this process one of several ranks."""
    return "RANK" in os.environ


def launch_ranks(tool: Path, config: Path, num_procs: int, max_restarts: int = 0) -> None:
    """Run a tool's ranks on this machine and wait for them.

    Args:
        tool: the file of the tool
        config: the run's config.yaml; its folder is the run's output folder
        max_restarts: how often all ranks are started again after one was killed or has crashed

    Raises:
        UserError: the first error of a rank.
    """
    last = None
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(max_restarts + 1):
            error = Path(folder) / f"error_{attempt}"
            os.environ[ERROR_FILE] = str(error)
            try:
                with section("dist"):
                    code = launch([sys.executable, str(tool), RESOLVED, str(config)], num_procs)
            finally:
                del os.environ[ERROR_FILE]
            if code == 0:
                return
            message = error.read_text() if error.exists() else None
            is_final = code in STOPPED or (message is not None and code < TRANSIENT)
            if is_final or attempt == max_restarts:
                _raise_for(code, message)
            cause = message or _cause(code)
            told = "the same failure again" if cause == last else cause
            print(f"restart {attempt + 1} of {max_restarts}: {told}", flush=True)
            last = cause


def _raise_for(code: int, message: str | None) -> None:
    """Re-raise a rank's failure in this process.

    Args:
        code: the rank's exit code, not 0
        message: the rank's own error, if it left one
    """
    if code in STOPPED:
        sys.exit(code)
    if message is not None and code > 128:
        raise UserError(f"a rank was ended by {_signal_name(code)}: {message}")
    if message is not None:
        raise (UsageError if code == 2 else UserError)(message)
    raise UserError(_cause(code))


def _cause(code: int) -> str:
    if code > 128:
        name = _signal_name(code)
        return f"a rank was ended by {name}; the same command resumes from the last checkpoint"
    return f"a rank ended with code {code}; its error is printed above"


def _signal_name(code: int) -> str:
    """`SIGKILL, perhaps because the memory ran out`, from an exit code above 128."""
    name = signal.Signals(code - 128).name
    return name + (", perhaps because the memory ran out" if name == "SIGKILL" else "")
