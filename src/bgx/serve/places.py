"""A request's place in the queue, from its first byte until its order takes it over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgx.serve.queue import Load

if TYPE_CHECKING:
    from bgx.serve.queue import FullError, Queue, Ticket


class Place:
    """A request's place in the queue until its order takes it over. Raises FullError."""

    def __init__(self, queue: Queue, client: str, load: Load) -> None:
        self._queue = queue
        self._lost: FullError | None = None
        self._ticket: Ticket | None = queue.enter(client, load, self._lose)

    def _lose(self, error: FullError) -> None:
        self._lost = error

    def check(self) -> None:
        """Raises FullError where the place is lost."""
        if self._lost is not None:
            raise self._lost

    def change(self, load: Load) -> None:
        """What the request holds is known."""
        self.check()
        if self._ticket is not None:
            self._queue.change(self._ticket, load)

    def add_bytes(self, count: int) -> None:
        """The request holds more."""
        if self._ticket is not None:
            self.change(self._ticket.load + Load(0, 0, count))

    def hand_over(self) -> Ticket:
        """The ticket, which is somebody else's to give back from now on. Raises FullError."""
        self.check()
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            raise AssertionError("a place is handed over once")
        return ticket

    def leave(self) -> None:
        """Give it back, unless it was handed over."""
        if self._ticket is not None:
            self._queue.leave(self._ticket)
