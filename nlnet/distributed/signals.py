"""The signals that ask a run to stop, and how its worker processes leave them to it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
WATCHER = "end-with-parent"  # name of a thread
EVERY = 0.5  # seconds between its looks at the parent process


def leave_signals_to_run(worker: int = 0) -> None:
    """Ignore SIGNALS in this process, which the run started; SIGTERM of the run itself ends it.

    `timeout`, Ctrl-C and SLURM signal all processes of a run. The run finishes its step and saves
    itself, and needs its workers until then.

    Args:
        worker: the number of the worker, which DataLoader gives; it is not used
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # threads that start later inherit it
    threading.Thread(target=_end_for, args=(os.getppid(),), daemon=True).start()


def _end_for(run: int) -> None:
    while True:
        info = signal.sigwaitinfo(SIGNALS)
        if info.si_signo == signal.SIGTERM and info.si_pid == run:
            os._exit(0)


@contextmanager
def ending_with(parent: int) -> Iterator[None]:
    """Ask the work in this process to stop, with SIGTERM, when the parent process has ended.

    The process ends after its work then: nobody would give it more.
    """
    if all(thread.name != WATCHER for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent,), name=WATCHER, daemon=True).start()
    try:
        yield
    finally:
        if os.getppid() != parent:
            sys.stdout.flush()
            os._exit(128 + signal.SIGTERM)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
