"""The memory of this process: as Linux counts it, or on its GPU."""

from pathlib import Path

import torch


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """Return the largest resident memory since the start or the last `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Set the peak to the present resident memory."""
    Path("/proc/self/clear_refs").write_text("5")


def restart_peak(device: torch.device) -> None:
    """Let `peak_megabytes` begin with the memory that is in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        reset_peak()


def peak_megabytes(device: torch.device) -> float:
    """Return the largest memory in use so far: the tensors of a GPU, or the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return peak_resident_bytes() / 1e6


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))
