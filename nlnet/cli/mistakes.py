"""The user's mistakes: one line on the standard error, and an exit code."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from nlnet.cli.explain import explain
from nlnet.cli.ranks import ERROR_FILE
from nlnet.errors import UsageError, UserError

# Reported without a stack trace.
MISTAKES = (UserError, HydraException, OmegaConfBaseException, MarkedYAMLError)
# How the system refuses a file or a folder for a reason outside the program.
REFUSALS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line if the body raises one of MISTAKES, or the system refuses a file."""
    try:
        yield
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
    if isinstance(error, UserError):
        fail(str(error), 2 if isinstance(error, UsageError) else 1)
    fail(explain(error), 2)


def fail(message: str, code: int) -> NoReturn:
    """Print an error and exit. A rank leaves the message to the process that launched it."""
    if ERROR_FILE not in os.environ:
        print(f"error: {message}", file=sys.stderr)
    else:
        # Most mistakes are the same on every rank: only the first message is kept.
        with suppress(FileExistsError), open(os.environ[ERROR_FILE], "x") as file:
            file.write(message)
    sys.exit(code)
