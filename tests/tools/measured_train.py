"""tools/train.py that writes its memory, open files and threads, and those of its workers.

    python measured_train.py FILE WORD...

FILE gets a list: for each step, {name: number} of this process and of all its workers together.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch

import nlnet.trainer.loop

ROOT = Path(__file__).parents[2]
counts: list[dict[str, int]] = []
train_step = nlnet.trainer.loop.train_step


def resident(pid: str) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def count(owner: str, pids: list[str]) -> dict[str, int]:
    return {
        f"{owner} bytes": sum(resident(pid) for pid in pids),
        f"{owner} files": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        f"{owner} threads": sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
    }


def counted_step(*args: Any, **kwargs: Any) -> Any:
    me = str(os.getpid())
    workers = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    counts.append(count("run", [me]) | count("workers", workers))
    counts[-1]["GPU bytes"] = torch.cuda.memory_allocated()
    return train_step(*args, **kwargs)


if __name__ == "__main__":
    nlnet.trainer.loop.train_step = counted_step
    file, tool = Path(sys.argv[1]), str(ROOT / "tools" / "train.py")
    sys.argv = [tool, *sys.argv[2:]]
    sys.path.insert(0, str(ROOT / "tools"))
    runpy.run_path(tool, run_name="__main__")
    file.write_text(json.dumps(counts))
