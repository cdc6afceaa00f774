"""What the operating system says about this machine."""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name, or its architecture if there is no name."""
    return _cpu_field(cpuinfo, "model name") or platform.machine()


def cpu_features(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Return the names of the processor's instruction sets, such as avx2; empty if unknown."""
    text = _cpu_field(cpuinfo, "flags") or _cpu_field(cpuinfo, "Features")  # x86, ARM
    return frozenset(text.split())


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory(meminfo: Path = MEMINFO, limit: Path = MEMORY_LIMIT) -> tuple[int, int]:
    """Return the bytes of memory in all, at most the container's limit, and those available.

    Both are 0 if the system does not say them.
    """
    fields = {}
    for line in _lines(meminfo):
        name, _, value = line.partition(":")
        fields[name] = 1024 * int(value.split()[0])
    total, available = fields.get("MemTotal", 0), fields.get("MemAvailable", 0)
    text = "".join(_lines(limit)).strip()
    most = int(text) if text.isdecimal() else total
    return min(total, most), min(available, most)


def _cpu_field(cpuinfo: Path, name: str) -> str:
    for line in _lines(cpuinfo):
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
