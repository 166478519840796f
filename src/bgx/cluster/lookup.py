"""Looks up in the storage whether results exist, many at once and beside the broker's thread."""

from __future__ import annotations

from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from bgx.threads import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bgx.cluster.inflight import PendingPicture

_THREADS = 16
"""Results looked up at once: an object store takes some milliseconds for each."""


class ResultLookup:
    """Tells which targets exist. All methods are for one thread.

    pending: pictures that were requested and whose answer has not been collected.
    """

    def __init__(self) -> None:
        self.pending: set[PendingPicture] = set()
        self._requested: list[PendingPicture] = []
        self._finished: SimpleQueue[tuple[PendingPicture, bool]] = SimpleQueue()
        self._workers = Workers(_THREADS, "lookup")

    def request(self, picture: PendingPicture) -> None:
        """Look up this picture's target, unless that is pending; :meth:`start` starts it."""
        if picture not in self.pending:
            self.pending.add(picture)
            self._requested.append(picture)

    def start(self) -> None:
        """Start all requested lookups."""
        requested, self._requested = self._requested, []
        for first in range(min(len(requested), _THREADS)):
            self._workers.submit(partial(self._look_up, requested[first::_THREADS]))

    def collect(self) -> Iterator[tuple[PendingPicture, bool]]:
        """Yield what is finished by now: pictures, and whether their target exists. Never waits."""
        while True:
            try:
                picture, exists = self._finished.get_nowait()
            except Empty:
                return
            self.pending.discard(picture)
            yield picture, exists

    def close(self) -> None:
        """Wait for the lookups that are started."""
        self._workers.close()

    def _look_up(self, pictures: Sequence[PendingPicture]) -> None:
        for picture in pictures:
            target = picture.job.target
            self._finished.put((picture, target is not None and target.is_there()))
