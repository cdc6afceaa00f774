"""What the C library does with the memory of freed tensors, and the dict of the choices."""

import ctypes
import platform

from nlnet.checks import one_of

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # of mallopt, malloc.h
ALLOCATORS: dict[str, dict[int, int]] = {
    # The heap is kept; a tensor above 16 MB that fits into none of its holes is mapped afresh.
    "reuse": {MMAP_THRESHOLD: 2**24, TRIM_THRESHOLD: -1, TOP_PAD: 2**27},
    "keep": {MMAP_MAX: 0, TRIM_THRESHOLD: -1},  # fastest: all of it stays with the process
    "return": {MMAP_THRESHOLD: 2**17},  # smallest: it goes back to the system at once
    "system": {},  # as the C library would have it
}


def set_allocator(name: str) -> None:
    """Settle how this process allocates from now on; raises UsageError for an unknown name.

    Memory that comes fresh from the system is cleared page by page at its first touch, which costs
    more than a norm that writes it; memory that is kept for reuse falls to pieces, and a large
    tensor fits into none. Other C libraries than glibc are left as they are.
    """
    parameters = one_of("trainer.allocator", name, ALLOCATORS)
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)
