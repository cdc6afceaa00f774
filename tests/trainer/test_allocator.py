"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

from nlnet.errors import UsageError
from nlnet.trainer.allocator import set_allocator

COUNT = """
import resource, torch
from nlnet.trainer.allocator import set_allocator
set_allocator('{name}')
def touch(): torch.ones(2**24)  # 64 MB
for _ in range(20): touch()  # the heap finds its size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(name: str) -> int:
    command = [sys.executable, "-c", COUNT.format(name=name)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_large_tensor_finds_its_pages_again():
    assert page_faults("reuse") * 20 < page_faults("return")


def test_an_unknown_allocator_is_a_usage_error():
    with pytest.raises(UsageError, match=r"trainer\.allocator"):
        set_allocator("lavish")
