"""A request's place in the queue while its body is read and its options are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgx.serve.queue import Load

if TYPE_CHECKING:
    from bgx.serve.queue import FullError, Queue, Ticket


class Place:
    """A request's place in the queue until it is handed over to an order. Raises FullError."""

    def __init__(self, queue: Queue, client: str, load: Load) -> None:
        self._queue = queue
        self._lost: FullError | None = None
        self._ticket: Ticket | None = queue.enter(client, load, self._lose)

    def _lose(self, error: FullError) -> None:
        self._lost = error

    def check(self) -> None:
        """Raise FullError if the place went to another client."""
        if self._lost is not None:
            raise self._lost

    def change(self, load: Load) -> None:
        """Replace the estimated load by what has become known. Raises FullError."""
        self.check()
        if self._ticket is not None:
            self._queue.change(self._ticket, load)

    def add_bytes(self, count: int) -> None:
        """Add to the request's load. Raises FullError."""
        if self._ticket is not None:
            self.change(self._ticket.load + Load(0, 0, count))

    def hand_over(self) -> Ticket:
        """The ticket, which the caller must give back from now on. Raises FullError."""
        self.check()
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            raise AssertionError("a place is handed over once")
        return ticket

    def leave(self) -> None:
        """Give the place back, unless it was handed over."""
        if self._ticket is not None:
            self._queue.leave(self._ticket)
