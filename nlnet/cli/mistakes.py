"""The user's mistakes: one line on the standard error, and an exit code."""

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


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line if the body raises one of MISTAKES, or on Ctrl-C."""
    try:
        yield
    except MISTAKES as error:
        fail_with(error)
    except KeyboardInterrupt:
        fail("interrupted; the same command resumes", 130)


def fail_with(error: Exception) -> NoReturn:
    """Exit with the message of a mistake: code 2 for a wrong word or number, else 1."""
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
