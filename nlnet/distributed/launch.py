"""The processes of one run on this machine: start them, pass signals on, wait for all of them."""

import os
import signal
import socket
import subprocess
import time
from types import FrameType

from nlnet.distributed.signals import SIGNALS
from nlnet.errors import ArgumentError

LAUNCHER = "NLNET_LAUNCHER"  # environment variable: the process id of the launcher
STOPPED = {128 + signum for signum in SIGNALS}  # exit codes of ranks that agreed to stop
GRACE = 5.0  # seconds between SIGTERM and SIGKILL, for ranks that go on after another one failed


def launch(command: list[str], num_procs: int) -> int:
    """Run a command as the ranks of one run on this machine and wait for all of them.

    Every rank is a new process with RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR
    and MASTER_PORT in its environment. SIGINT, SIGTERM and SIGUSR1 are passed on. When a rank
    fails, the others get SIGTERM and, `GRACE` seconds later, SIGKILL.

    Returns:
        0, or the exit code of the rank that failed first; 128 + n if signal n ended that rank

    Raises:
        ArgumentError: num_procs is below 1.
    """
    if num_procs < 1:
        raise ArgumentError(f"num_procs={num_procs} is not positive; use 1 or more")
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        for process in ranks:
            process.send_signal(signum)

    handlers = {signum: signal.signal(signum, forward) for signum in SIGNALS}
    try:
        for environment in _environments(num_procs):
            # In its own session, a rank gets Ctrl-C once, through `forward`, and not from the
            # terminal as well.
            ranks.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return _wait(ranks)
    finally:
        for process in ranks:
            _kill(process)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _environments(num_procs: int) -> list[dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(len(os.sched_getaffinity(0)) // num_procs, 1)
    defaults = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin take cores from the decoding processes
        "GLOO_SOCKET_IFNAME": "lo",
    }
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), LAUNCHER: str(os.getpid())}
    size = {"WORLD_SIZE": str(num_procs), "LOCAL_WORLD_SIZE": str(num_procs)}
    return [
        defaults | os.environ | group | size | {"RANK": str(i), "LOCAL_RANK": str(i)}
        for i in range(num_procs)
    ]


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    first_bad, deadline = 0, float("inf")
    while None in (codes := [process.poll() for process in ranks]):
        if not first_bad and any(codes):
            first_bad, deadline = _cause(codes), time.monotonic() + GRACE
            if first_bad not in STOPPED:  # after an agreed stop the others end by themselves
                for process in ranks:
                    process.terminate()
        if time.monotonic() > deadline:
            for process in ranks:
                _kill(process)
        time.sleep(0.05)
    first_bad = first_bad or _cause(codes)
    return first_bad if first_bad >= 0 else 128 - first_bad


def _cause(codes: list[int | None]) -> int:
    """The failure to report of those seen at once; 0 if there is none.

    A rank that a signal ended has a negative code. It is the cause: the others fail because it is
    gone.
    """
    return min((code for code in codes if code), default=0)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a rank and the worker processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
