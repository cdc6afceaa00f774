"""One line for a worker process that ended while it decoded videos."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from nlnet.errors import TransientError

# torch's messages: `DataLoader worker (pid 7) is killed by signal: Killed. `, `DataLoader worker
# (pid(s) 7, 8) exited unexpectedly`. torch raises them wherever the main process is at that time.
_MESSAGE = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", re.DOTALL)


@contextmanager
def named_worker_failures() -> Iterator[None]:
    """Raise TransientError, with the process and the cause, if a data worker ends unexpectedly."""
    try:
        yield
    except RuntimeError as error:
        found = _MESSAGE.match(str(error))
        if found is None:
            raise
        cause = found[2].splitlines()[0].strip().rstrip(".")
        raise TransientError(
            f"the data worker with the process id {found[1]} {cause}; if the system ended it for "
            "lack of memory, lower data.num_workers; if it crashed, data.num_workers=0 shows where"
        ) from error
