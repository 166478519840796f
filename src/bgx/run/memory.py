"""How much memory pictures in work may take together."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bgx.machine import memory_limit, memory_used

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES_PER_PIXEL = 14
"""Of a picture in work, measured at its peak: the decoded photo, its matte, the finished picture,
and the encoder's buffers."""

BYTES_PER_INPUT_PIXEL = 1100
"""Of one run of a network, measured for u2netp on a CPU (113 MB for 320 x 320)."""

_PIXELS_PER_WORKER = 25_000_000
"""Room for one large photo each; a larger one runs with fewer beside it."""

_SHARE = 0.8
"""Of the memory that is left: the rest is for what allocators hold in reserve."""


def estimate_memory(pixels: int, network_input: tuple[int, int]) -> int:
    """Bytes that one picture in work takes.

    pixels: of the larger of the photo and its finished picture. network_input: width and height.
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
    """Bytes that pictures in work may take together, with the network loaded.

    A large photo for each worker, and not more than most of what is left for this process. limit,
    used: bytes this process may use and does use; None as the machine and its container say.
    """
    wanted = workers * estimate_memory(_PIXELS_PER_WORKER, network_input)
    limit = memory_limit() if limit is None else limit
    used = memory_used() if used is None else used
    return max(1, min(wanted, int(_SHARE * (limit - used))))


class Memory:
    """Grants memory to pictures, first come, first served.

    size: bytes granted at once at most; a picture that needs more gets it when it is alone.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._granted = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait for memory."""
        return len(self._waiting)

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until ``amount`` bytes are free, and hold them for as long as the block runs."""
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
