"""Limits the memory of all pictures in work."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bgx.machine import memory_limit, memory_used

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES_PER_PIXEL = 14
"""Peak memory of a picture in work, as measured: the decoded photo, its matte, the finished picture
and the encoder's buffers."""

BYTES_PER_INPUT_PIXEL = 1100
"""Memory of one run of the network, measured for u2netp on a CPU (113 MB for 320 x 320)."""

_PIXELS_PER_WORKER = 25_000_000
"""Size of a large photo, for which every worker gets memory. With a larger one, fewer run at once.
"""

_SHARE = 0.8
"""Share of the remaining memory that is used; allocators keep some of the rest in reserve."""


def estimate_memory(pixels: int, network_input: tuple[int, int]) -> int:
    """Bytes that one picture in work takes.

    pixels: of the photo or the finished picture, whichever is larger. network_input: width, height.
    """
    width, height = network_input
    return BYTES_PER_PIXEL * pixels + BYTES_PER_INPUT_PIXEL * width * height


def plan_memory(
    workers: int,
    network_input: tuple[int, int],
    *,
    limit: int | None = None,
    used: int | None = None,
) -> int:
    """Bytes that all pictures in work may take, once the network is loaded.

    Enough for a large photo per worker, limited by the memory that this process has left. limit,
    used: bytes that this process may use and does use; None asks the machine and its container.
    """
    wanted = workers * estimate_memory(_PIXELS_PER_WORKER, network_input)
    limit = memory_limit() if limit is None else limit
    used = memory_used() if used is None else used
    return max(1, min(wanted, int(_SHARE * (limit - used))))


class Memory:
    """Grants memory to pictures, first come, first served.

    size: most bytes granted at once; a picture that needs more gets them when no other holds any.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._granted = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """Number of pictures that wait for memory."""
        return len(self._waiting)

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until ``amount`` bytes are free, and hold them while the block runs."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(amount))
                self._granted += amount
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._granted -= amount
                self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return not self._granted or self._granted + amount <= self._size
