"""A process that has loaded the libraries, and runs Python programs in forks of itself.

    python command_server.py

For each line of its input, a JSON object with `words` (a program and its words), `cwd`, `env`,
`out` and `err` (files), it prints the number of the new process, and then its exit code. The
program is run as `python PROGRAM WORD...` runs it, with modules of nlnet that are loaded anew.
"""

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

del sys.path[0]  # this folder: its names are not those of modules
from nlnet.cli.environment import prepare_environment  # noqa: E402

LIBRARIES = ("torch", "torch.utils.data", "torch.utils.tensorboard", "torchvision", "numpy")
LIBRARIES += ("hydra.core.global_hydra", "hydra._internal.hydra", "omegaconf", "av", "tqdm")


def become(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """Give this process the words, the folder, the environment and the files of a command."""
    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_WRONLY if number else os.O_RDONLY), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv, sys.orig_argv = words, [sys.executable, *words]
    more = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [str(Path(words[0]).parent), *more]


def serve() -> str | None:
    """Fork for each request: returns the program in a new process, and None at the end."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(**request)
            return request["words"][0]
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


prepare_environment()
for _name in LIBRARIES:
    importlib.import_module(_name)
for _name in [name for name in sys.modules if name.partition(".")[0] == "nlnet"]:
    del sys.modules[_name]
assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose the other threads"
gc.freeze()
if (program := serve()) is not None:
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = program
    exec(compile(Path(program).read_bytes(), program, "exec"), main.__dict__)
