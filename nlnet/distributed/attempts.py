"""What the attempts of one launch know of each other: how the run ended, which errors were said.

A launcher (`launch`, or the agent of torchrun) starts the ranks again after a failure. All ranks
that it starts on this machine share a folder. This module imports the standard library only: a
rank that has nothing to do ends before it loads torch.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

ERROR_FILE = "NLNET_ERROR_FILE"  # environment variable: the file for the ranks' first error
TRANSIENT = os.EX_TEMPFAIL  # 75, exit code of a rank after a failure that may not come again
_FINAL = "final"  # the file with the exit code of all later attempts


def shared_folder() -> Path | None:
    """Return the folder of all ranks and attempts on this machine; None without a launcher."""
    if ERROR_FILE in os.environ:
        return Path(os.environ[ERROR_FILE]).parent
    reply = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))  # .../attempt_2/0/error.json
    return reply.parents[2] if reply.name == "error.json" and len(reply.parents) > 3 else None


def is_said_first(message: str) -> bool:
    """Whether no rank of this machine, in no attempt, has said the message before."""
    folder = shared_folder()
    if folder is None:
        return True
    try:
        name = hashlib.sha256(message.encode()).hexdigest()
        (folder / f"said_{name[:16]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # the folder is gone with the launcher
        return True
    return True


def end_run(code: int) -> None:
    """Remember that a new attempt cannot help: the run was asked to stop, or has a mistake."""
    folder = shared_folder()
    if folder is not None:
        with suppress(OSError):
            (folder / _FINAL).write_text(str(code))


def final_code() -> int | None:
    """Return the exit code that an earlier attempt left for all later ones, if there is one."""
    folder = shared_folder()
    if folder is None or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    try:
        return int((folder / _FINAL).read_text())
    except (OSError, ValueError):
        return None
