"""Environment variables that libraries read once, when they are loaded."""

import os
import sys
from io import TextIOWrapper

# OpenMP threads otherwise spin while they wait. A machine that also decodes videos or runs other
# programs then loses a core for every waiting thread.
# torch's profiler prints its own states, and an error on machines without a GPU, below level 6.
DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE", "KINETO_LOG_LEVEL": "6"}


def prepare_environment() -> None:
    """Set the variables of `DEFAULTS` that the user has not set.

    Names of files that are not UTF-8 are printed with escaped bytes; printing them never fails.
    Every entry calls this first: OpenMP reads the variables when torch is imported. This module
    imports the standard library only.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if isinstance(sys.stdout, TextIOWrapper):  # not so where a test or a notebook replaces it
        sys.stdout.reconfigure(errors="backslashreplace")
