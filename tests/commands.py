"""Commands that tests run to their end, without loading torch and Hydra anew for each of them."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Timer

SERVER = str(Path(__file__).with_name("command_server.py"))


@cache
def server() -> subprocess.Popen[str]:
    """The process whose forks run the commands."""
    process = subprocess.Popen(
        [sys.executable, SERVER],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)  # which ends its input
    return process


def run_python(
    words: Sequence[str], cwd: Path, *, env: Mapping[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a Python program, as subprocess.run does; `words` begin with its file.

    The process is a fork of one in which the libraries are loaded, which saves seconds. Tests of
    signals, of ranks and of the start of a program start their processes themselves.
    """
    process = server()
    assert process.stdin is not None and process.stdout is not None
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name, "out"), Path(name, "err")
        for path in (out, err):
            path.touch()
        request = {
            "words": [*words],
            "cwd": str(cwd),
            "env": dict(os.environ if env is None else env),
        }
        request |= {"out": str(out), "err": str(err)}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        pid = int(process.stdout.readline())
        timer = Timer(timeout, os.kill, (pid, signal.SIGKILL))
        timer.start()
        code = int(process.stdout.readline())
        timer.cancel()
        command = [sys.executable, *words]
        return subprocess.CompletedProcess(command, code, out.read_text(), err.read_text())
