"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from nlnet.trainer.allocator import keep_freed_memory
if {keep}: keep_freed_memory()
def touch(): torch.ones(2**24)  # 64 MB
for _ in range(20): touch()  # the heap finds its size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_large_tensor_finds_its_pages_again():
    def page_faults(keep: bool) -> int:
        command = [sys.executable, "-c", COUNT.format(keep=keep)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert page_faults(True) * 20 < page_faults(False)
