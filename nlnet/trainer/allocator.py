"""What the C library does with the memory of freed tensors."""

import ctypes
import platform

from nlnet.errors import choose

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # of mallopt, in malloc.h
ALLOCATORS: dict[str, dict[int, int]] = {
    # The heap is kept. A tensor above 16 MB that fits into no free part of it gets new pages.
    "reuse": {MMAP_THRESHOLD: 2**24, TRIM_THRESHOLD: -1, TOP_PAD: 2**27},
    "keep": {MMAP_MAX: 0, TRIM_THRESHOLD: -1},  # fastest: the process keeps all of its memory
    "return": {MMAP_THRESHOLD: 2**17},  # smallest: freed memory returns to the system at once
    "system": {},  # the C library's defaults
}


def set_allocator(allocator: str) -> None:
    """Set how this process allocates memory from now on.

    The system clears new memory page by page at the first access, which takes longer than a norm
    that writes it. On the other hand, memory that is kept becomes fragmented, so that a large
    tensor fits into no free part. C libraries other than glibc are not changed.

    Raises ArgumentError if the name is unknown.
    """
    parameters = choose("allocator", allocator, ALLOCATORS)
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)
