"""What the C library's allocator is told. Speed only: nothing depends on it, and other systems need none of it."""

import ctypes
import sys

KEPT_BYTES = 32 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Have glibc use memory of up to a message's size again instead of giving it back; whether it heard.

    gRPC and Python copy each slice several times. Given back after each copy, that memory has to be asked for, and
    cleared by the kernel, hundreds of times a slice: half of the processor time of a push. 32 MB at most are kept
    by each of the few threads that handle slices.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
