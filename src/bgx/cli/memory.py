"""Memory of a process that does many pictures."""

from __future__ import annotations

import contextlib
import ctypes
import sys

# glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8


def keep_memory() -> None:
    """Have one picture's memory serve the next one.

    Of its own accord glibc gives large blocks back to the system and takes them anew, page by page:
    half of the time that the system spends on a batch. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_TRIM_THRESHOLD, 256 << 20)
        # Otherwise each thread would keep its own.
        library.mallopt(_ARENA_MAX, 1)
