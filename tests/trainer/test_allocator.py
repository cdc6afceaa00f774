"""What happens to freed memory."""

import platform
import subprocess
import sys

import pytest

from nlnet.config import TrainerConfig
from nlnet.errors import ArgumentError, UsageError
from nlnet.trainer.allocator import set_allocator
from nlnet.trainer.build import apply_allocator

COUNT = """
import resource, torch
from nlnet.trainer.allocator import set_allocator
set_allocator('{name}')
def touch(): torch.ones({size} * 2**18)  # size in MB
for _ in range(20): touch()  # until the heap has its final size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(name: str, size: int) -> int:
    """Count the page faults of four tensors of `size` MB, allocated one after the other."""
    command = [sys.executable, "-c", COUNT.format(name=name, size=size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(("name", "size"), [("keep", 64), ("keep", 8), ("reuse", 8)])
def test_a_kept_heap_is_used_again(name, size):
    assert page_faults(name, size) * 20 < page_faults("return", size)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_tensor_above_16_mb_returns_its_memory():
    assert page_faults("reuse", 64) * 2 > page_faults("return", 64)


def test_an_unknown_allocator_is_refused():
    with pytest.raises(ArgumentError, match=r"^allocator=lavish .*reuse"):
        set_allocator("lavish")
    with pytest.raises(UsageError, match=r"^trainer\.allocator=lavish .*reuse"):
        apply_allocator(TrainerConfig(allocator="lavish"))
