"""The ranks of a tool: processes that run the same file with a resolved configuration."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from nlnet.checks import section
from nlnet.distributed.launch import STOPPED, launch
from nlnet.errors import UsageError, UserError

RESOLVED = "--resolved"  # `tool.py --resolved PATH` runs one rank of the run in PATH, a config.yaml
ERROR_FILE = "NLNET_ERROR_FILE"  # environment variable: the file for the first error of the ranks


def is_rank() -> bool:
    """Whether a launcher (this one, torchrun, SLURM) made this process one of several ranks."""
    return "RANK" in os.environ


def launch_ranks(tool: Path, config: Path, num_procs: int) -> None:
    """Run a tool's ranks on this machine and wait for them.

    Args:
        tool: the file of the tool
        config: the run's config.yaml; its folder is the run's output folder

    Raises:
        UserError: the first error of a rank.
    """
    with tempfile.TemporaryDirectory() as folder:
        error = Path(folder) / "error"
        os.environ[ERROR_FILE] = str(error)
        try:
            with section("dist"):
                code = launch([sys.executable, str(tool), RESOLVED, str(config)], num_procs)
        finally:
            del os.environ[ERROR_FILE]
        if code != 0:
            _raise_for(code, error.read_text() if error.exists() else None)


def _raise_for(code: int, message: str | None) -> None:
    """Re-raise a rank's failure in this process.

    Args:
        code: the rank's exit code, not 0
        message: the rank's own error, if it left one
    """
    if code in STOPPED:
        sys.exit(code)
    if message is not None:
        raise (UsageError if code == 2 else UserError)(message)
    if code > 128:
        raise UserError(
            f"a rank was ended by {signal.Signals(code - 128).name}, perhaps because the memory "
            "ran out; the same command resumes from the last checkpoint"
        )
    raise UserError(f"a rank ended with code {code}; its error is printed above")
