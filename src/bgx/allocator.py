"""Tunes glibc's memory allocator. Other C libraries are left as they are."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any

# glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_ARENA_MAX = -8


def keep_memory() -> None:
    """Make glibc reuse the memory of one picture for the next one.

    By default it returns large blocks to the system and requests them again, page by page, which
    takes half of the system time of a batch.
    """
    library = _find_library()
    with contextlib.suppress(AttributeError):
        library.mallopt(_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_TRIM_THRESHOLD, 256 << 20)
        # Otherwise each thread would keep memory of its own.
        library.mallopt(_ARENA_MAX, 1)


def release_memory() -> None:
    """Make glibc return its free memory to the system.

    After a network is loaded that is more than the network's own size.
    """
    with contextlib.suppress(AttributeError):
        _find_library().malloc_trim(0)


def _find_library() -> Any:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return ctypes.CDLL(None)
    return None
