"""What the C library does with the memory of large tensors."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # the numbers of mallopt's parameters in malloc.h


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of handing it back to the system.

    glibc maps each tensor above 32 MB afresh, and the system clears its pages one by one at first
    touch: a third of the time of a norm on a large map. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
