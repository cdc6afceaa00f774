"""The user's mistakes: one line on the standard error, and an exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from nlnet.cli.explain import explain
from nlnet.distributed.attempts import ERROR_FILE, TRANSIENT, end_run, is_said_first
from nlnet.distributed.launch import STOPPED
from nlnet.errors import TransientError, UsageError, UserError

# Reported without a stack trace.
MISTAKES = (UserError, HydraException, OmegaConfBaseException, MarkedYAMLError)
# How the system refuses a file or a folder for a reason outside the program.
REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line if the body raises one of MISTAKES, or the system refuses a file.

    Ranks are not started again after a mistake, nor after a stop that they agreed on.
    """
    try:
        yield
    except SystemExit as end:
        if end.code in STOPPED:
            end_run(int(end.code))
        raise
    except (*MISTAKES, OSError) as error:
        if not is_mistake(error):
            raise
        fail_with(error)


def is_mistake(error: object) -> bool:
    """Whether an error is reported in one line: one of MISTAKES, or a refused file."""
    if isinstance(error, MISTAKES):  # one of Hydra's is an OSError too
        return True
    return isinstance(error, OSError) and error.errno in REFUSALS and error.filename is not None


def fail_with(error: Exception) -> NoReturn:
    """Exit with the message of a mistake: code 2 for a wrong word or number, else 1."""
    if isinstance(error, OSError) and not isinstance(error, MISTAKES):
        fail(
            f"{os.fsdecode(error.filename)}: cannot be used ({error.strerror}); free disk space, "
            "change the permissions, or choose another place",
            1,
        )
    if isinstance(error, TransientError):
        fail(str(error), TRANSIENT if "RANK" in os.environ else 1)
    if isinstance(error, UserError):
        fail(str(error), 2 if isinstance(error, UsageError) else 1)
    fail(explain(error), 2)


def fail(message: str, code: int) -> NoReturn:
    """Print an error and exit."""
    leave_error(message, code)
    sys.exit(code)


def leave_error(message: str, code: int) -> None:
    """Print an error. A rank leaves the message to the process that launched it.

    Ranks that torchrun started print a message once for each machine and not in every attempt.
    """
    if code != TRANSIENT:
        end_run(code)
    if ERROR_FILE in os.environ:
        # Most mistakes are the same on every rank: only the first message is kept.
        with suppress(FileExistsError), open(os.environ[ERROR_FILE], "x") as file:
            file.write(message)
    elif is_said_first(message):
        print(f"error: {message}", file=sys.stderr)


def say_tracebacks_once() -> None:
    """Let one of the ranks print a traceback that several ranks or attempts have."""

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        lines = traceback.format_exception(kind, error, trace)
        if is_said_first("".join(lines[1:-1])):  # the last line can have numbers of the rank
            print("".join(lines), end="", file=sys.stderr)

    sys.excepthook = say
