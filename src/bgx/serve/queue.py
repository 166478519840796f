"""The queue of waiting requests, shared fairly among clients.

Its length is limited in requests, pixels and bytes. If a new request does not fit, it displaces the
latest request of the client with the largest share, provided that this client then still has at
least the newcomer's share. So a client alone may fill the whole queue, and beside others it keeps
no more than a fair share (dominant resource fairness, Ghodsi et al., NSDI 2011). The next request
to be served is that of the client for whom the fewest pixels were processed (start-time fair
queueing, Goyal et al., SIGCOMM 1996).

Nothing here locks or waits: a single thread calls it and passes in the clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_HALF_LIFE = 60.0
"""Seconds of work after which a measurement of the pace has half its weight."""

_FIRST_GUESS = 2_000_000.0
"""Pixels per second, before anything was measured."""

_LONGEST_RETRY = 600
"""Longest Retry-After, seconds."""


class FullError(Exception):
    """The queue has no room, or gave the place to a client with a smaller share.

    retry_after: seconds.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many requests are waiting")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Load:
    """Resources that a waiting request uses, or the limit for all together."""

    requests: int = 1
    pixels: int = 0
    bytes: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.requests + other.requests, self.pixels + other.pixels, self.bytes + other.bytes
        )

    def __sub__(self, other: Load) -> Load:
        return Load(
            self.requests - other.requests, self.pixels - other.pixels, self.bytes - other.bytes
        )

    def share(self, limit: Load) -> float:
        """The dominant share: the largest fraction of any resource's limit."""
        return max(
            self.requests / limit.requests, self.pixels / limit.pixels, self.bytes / limit.bytes
        )


@dataclass(eq=False, slots=True)
class Ticket:
    """A request that waits.

    ready: its body has been read, so that it may be served. kept: several requests wait for its
    result; it is not displaced. displace: called when it loses its place.
    """

    client: str
    load: Load
    displace: Callable[[FullError], None]
    ready: bool = False
    kept: bool = False


@dataclass(slots=True)
class _Client:
    tickets: list[Ticket] = field(default_factory=list)  # oldest first
    served: float = 0.0  # virtual time, pixels


class Queue:
    """Waiting tickets with at most ``limit`` of load together. clock: gives seconds."""

    def __init__(self, limit: Load, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.pace = Pace(clock)
        self._clients: dict[str, _Client] = {}
        self._virtual = 0.0

    @property
    def tickets(self) -> list[Ticket]:
        """All that wait, those of a client oldest first."""
        return [ticket for known in self._clients.values() for ticket in known.tickets]

    @property
    def waiting(self) -> Load:
        """Load of all tickets together."""
        return _sum(self.tickets)

    def enter(self, client: str, load: Load, displace: Callable[[FullError], None]) -> Ticket:
        """Add a ticket. Raises FullError if there is no room."""
        ticket = Ticket(client, load, displace)
        known = self._clients.setdefault(client, _Client())
        if not known.tickets:
            known.served = max(known.served, self._virtual)
        known.tickets.append(ticket)
        self.change(ticket, load)
        return ticket

    def change(self, ticket: Ticket, load: Load) -> None:
        """Change a ticket's load. If it no longer fits, it leaves the queue: raises FullError."""
        ticket.load = load
        if not self._make_room(ticket.client):
            self.leave(ticket)
            raise FullError(self.retry_after())

    def leave(self, ticket: Ticket) -> None:
        """Remove a ticket; nothing happens if it is not in the queue."""
        known = self._clients.get(ticket.client)
        if known is not None and ticket in known.tickets:
            known.tickets.remove(ticket)
            self._forget()

    def next(self) -> Ticket | None:
        """The ready ticket to be served next; it stays in the queue. None if none is ready."""
        ready = [ticket for ticket in self.tickets if ticket.ready]
        return min(ready, key=lambda ticket: self._clients[ticket.client].served, default=None)

    def start(self, ticket: Ticket) -> None:
        """Remove a ticket that is being served, and charge its client for it."""
        known = self._clients[ticket.client]
        self._virtual = max(self._virtual, known.served)
        known.served += max(1, ticket.load.pixels)
        known.tickets.remove(ticket)
        self._forget()

    def retry_after(self) -> int:
        """Seconds, 1 to 600, in which half of the waiting pixels will probably be processed."""
        seconds = self.waiting.pixels / 2 / self.pace.pixels_per_second
        return min(_LONGEST_RETRY, max(1, math.ceil(seconds)))

    def _make_room(self, client: str) -> bool:
        """Displace tickets of other clients until all fit; if they cannot, none: returns False."""
        held = {name: list(known.tickets) for name, known in self._clients.items()}
        share = _sum(held.pop(client)).share(self.limit)
        total = self.waiting
        displaced: list[Ticket] = []
        while total.share(self.limit) > 1:
            victim = self._find_greediest(held, share)
            if victim is None:
                return False
            held[victim.client].remove(victim)
            displaced.append(victim)
            total -= victim.load
        for victim in displaced:
            self.leave(victim)
            victim.displace(FullError(self.retry_after()))
        return True

    def _find_greediest(self, held: dict[str, list[Ticket]], share: float) -> Ticket | None:
        """The latest ticket of the largest client that keeps at least ``share`` without it."""
        for tickets in sorted(
            held.values(), key=lambda tickets: _sum(tickets).share(self.limit), reverse=True
        ):
            latest = next((ticket for ticket in reversed(tickets) if not ticket.kept), None)
            if latest is None:
                continue
            rest = _sum(ticket for ticket in tickets if ticket is not latest)
            if rest.share(self.limit) >= share:
                return latest
        return None

    def _forget(self) -> None:
        """Forget clients without tickets that would start at the current virtual time anyway."""
        if not any(known.tickets for known in self._clients.values()):
            self._clients.clear()
            self._virtual = 0.0
            return
        for name in [
            name
            for name, known in self._clients.items()
            if not known.tickets and known.served <= self._virtual
        ]:
            del self._clients[name]


def _sum(tickets: Iterable[Ticket]) -> Load:
    return sum((ticket.load for ticket in tickets), Load(0))


class Pace:
    """Measures recent throughput, in pixels per second of the time with work."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds, self._pixels = 1.0, _FIRST_GUESS
        self._working, self._since = 0, 0.0

    @property
    def pixels_per_second(self) -> float:
        return self._pixels / self._seconds

    def begin(self) -> None:
        """A picture is started."""
        self._pass_time()
        self._working += 1

    def end(self, pixels: int) -> None:
        """A picture is finished."""
        self._pass_time()
        self._working -= 1
        self._pixels += pixels

    def _pass_time(self) -> None:
        now = self._clock()
        if self._working:
            passed = now - self._since
            fade = 0.5 ** (passed / _HALF_LIFE)
            self._seconds = self._seconds * fade + passed
            self._pixels *= fade
        self._since = now
