"""The signals that ask a run to stop, and how its worker processes leave them to it."""

import os
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


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
