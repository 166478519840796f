"""Who may wait, and whose turn it is.

What waits is bounded in requests, pixels and bytes. Where there is no room, a newcomer takes the
place of the latest request of the client who holds most, as long as that client still holds no less
than the newcomer then does: alone, a client may fill the whole queue; beside others, none keeps
more than a fair share (dominant resource fairness, Ghodsi et al., NSDI 2011). Turns go by pixels to
the client who was served least (start-time fair queueing, Goyal et al., SIGCOMM 1996).

No locks and no waiting in here: one thread calls it, and time comes from outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_HALF_LIFE = 60.0
"""Seconds of work after which a measurement of the pace counts half."""

_FIRST_GUESS = 2_000_000.0
"""Pixels a second, before anything was measured."""

_LONGEST_RETRY = 600


class FullError(Exception):
    """There is no room, or the room went to a client who held less. retry_after: seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many requests are waiting")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Load:
    """What a waiting request holds, or what all may hold together."""

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
        """Of the resource of which it holds most, 0..1."""
        return max(
            self.requests / limit.requests, self.pixels / limit.pixels, self.bytes / limit.bytes
        )


@dataclass(eq=False, slots=True)
class Ticket:
    """A request that waits.

    ready: its body is here. kept: several clients wait for it; it is not displaced. displace:
    called when it loses its place.
    """

    client: str
    load: Load
    displace: Callable[[FullError], None]
    ready: bool = False
    kept: bool = False


@dataclass(slots=True)
class _Client:
    tickets: list[Ticket] = field(default_factory=list)  # oldest first
    served: float = 0.0  # pixels, virtual


class Queue:
    """Tickets that wait, at most ``limit`` of them together. clock: seconds."""

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
        """What they hold together."""
        return _sum(self.tickets)

    def enter(self, client: str, load: Load, displace: Callable[[FullError], None]) -> Ticket:
        """Take a place. Raises FullError where there is none."""
        ticket = Ticket(client, load, displace)
        self._make_room(ticket)
        known = self._clients.setdefault(client, _Client())
        if not known.tickets:
            known.served = max(known.served, self._virtual)
        known.tickets.append(ticket)
        return ticket

    def change(self, ticket: Ticket, load: Load) -> None:
        """What the ticket holds has become known. Raises FullError, and then it has left."""
        place = self._clients[ticket.client].tickets.index(ticket)
        self.leave(ticket)
        changed = Ticket(ticket.client, load, ticket.displace)
        self._make_room(changed)
        ticket.load = load
        known = self._clients.setdefault(ticket.client, _Client())
        known.tickets.insert(place, ticket)

    def leave(self, ticket: Ticket) -> None:
        """Give the place back; nothing happens where it has left before."""
        known = self._clients.get(ticket.client)
        if known is not None and ticket in known.tickets:
            known.tickets.remove(ticket)
            self._forget()

    def next(self) -> Ticket | None:
        """The ticket whose turn it is, of those that are ready; it stays in the queue."""
        ready = [ticket for ticket in self.tickets if ticket.ready]
        return min(ready, key=lambda ticket: self._clients[ticket.client].served, default=None)

    def start(self, ticket: Ticket) -> None:
        """Its picture goes to work: the place is free, and its client has had a turn."""
        known = self._clients[ticket.client]
        self._virtual = max(self._virtual, known.served)
        known.served += max(1, ticket.load.pixels)
        known.tickets.remove(ticket)
        self._forget()

    def retry_after(self) -> int:
        """Whole seconds until half of what waits will have been worked on, at least 1."""
        seconds = self.waiting.pixels / 2 / self.pace.pixels_per_second
        return min(_LONGEST_RETRY, max(1, math.ceil(seconds)))

    def _make_room(self, newcomer: Ticket) -> None:
        """Displace tickets until the newcomer fits; none where that is not enough: FullError."""
        held = {name: list(known.tickets) for name, known in self._clients.items()}
        share = (_sum(held.pop(newcomer.client, [])) + newcomer.load).share(self.limit)
        total = self.waiting + newcomer.load
        displaced: list[Ticket] = []
        while total.share(self.limit) > 1:
            victim = self._find_greediest(held, share)
            if victim is None:
                raise FullError(self.retry_after())
            held[victim.client].remove(victim)
            displaced.append(victim)
            total -= victim.load
        for victim in displaced:
            self.leave(victim)
            victim.displace(FullError(self.retry_after()))

    def _find_greediest(self, held: dict[str, list[Ticket]], share: float) -> Ticket | None:
        """The latest ticket of the client who holds most, if the rest is no less than ``share``."""
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
        """Clients without tickets, once it makes no difference what they were served."""
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
    """How many pixels a second are worked on, of late, while there is work."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds, self._pixels = 1.0, _FIRST_GUESS
        self._working, self._since = 0, 0.0

    @property
    def pixels_per_second(self) -> float:
        return self._pixels / self._seconds

    def begin(self) -> None:
        """A picture goes to work."""
        self._pass_time()
        self._working += 1

    def end(self, pixels: int) -> None:
        """It is finished."""
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
