"""The result of a benchmark and the facts of the machine that it depends on."""

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nlnet.runs.machine import cpu_model


@dataclass
class Report:
    """The result of a benchmark."""

    markdown: str
    numbers: Mapping[str, object]  # every number, ready for JSON
    files: Mapping[str, str] = field(default_factory=dict)  # name of a picture or table -> its text
    stem: str | None = None  # name of the file of the report, without .md; None: that of the bench


def machine() -> dict[str, str]:
    """Return the processor, accelerator, threads, versions and commit of this measurement."""
    return {
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit of the code, followed by + if files were changed since."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"
