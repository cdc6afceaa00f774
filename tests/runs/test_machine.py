"""Facts of the machine, read from files as Linux writes them."""

from pathlib import Path

import pytest

from nlnet.runs.machine import cpu_features, cpu_model, memory, usable_cores

X86 = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2\n\nprocessor : 1\nflags : x\n"
ARM = "processor\t: 0\nFeatures\t: asimd bf16\n"


def test_the_processor_of_x86_and_arm(tmp_path: Path):
    path = tmp_path / "cpuinfo"
    assert cpu_features(path) == frozenset() and cpu_model(path)  # no such file
    path.write_text(X86)
    assert (cpu_model(path), cpu_features(path)) == ("Some CPU", {"fpu", "avx2"})
    path.write_text(ARM)
    assert cpu_features(path) == {"asimd", "bf16"}
    assert usable_cores() >= 1


@pytest.mark.parametrize(
    ("limit", "found"), [("max\n", (4096, 2048)), ("1024\n", (1024, 1024)), (None, (4096, 2048))]
)
def test_the_memory_of_a_container_is_limited(tmp_path: Path, limit: str | None, found):
    info, most = tmp_path / "meminfo", tmp_path / "memory.max"
    info.write_text("MemTotal:  4 kB\nMemFree: 1 kB\nMemAvailable:  2 kB\nHugePages_Total:  0\n")
    if limit is not None:
        most.write_text(limit)
    assert memory(info, most) == found
    assert memory(tmp_path / "none", tmp_path / "none") == (0, 0)
