"""Environment variables that libraries read once, when they are loaded."""

import os

# OpenMP threads otherwise spin while they wait. A machine that also decodes videos or runs other
# programs then loses a core for every waiting thread.
# torch's profiler prints its own states, and an error on machines without a GPU, below level 6.
DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE", "KINETO_LOG_LEVEL": "6"}


def prepare_environment() -> None:
    """Set the variables of `DEFAULTS` that the user has not set.

    Every entry calls this first: OpenMP reads the variables when torch is imported. This module
    imports the standard library only.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
