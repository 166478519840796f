"""Pictures at work: each kind of result is made once, however many ask for it at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bgx.serve.asks import Refusal
from bgx.serve.making import make_result
from bgx.threads import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgx.serve.cache import Cache, Entry
    from bgx.serve.making import Order
    from bgx.serve.networks import Networks
    from bgx.serve.queue import FullError, Queue, Ticket
    from bgx.settings import ReadSettings


@dataclass(eq=False, slots=True)
class Flight:
    """An order that waits for its turn or is at work. waiting: requests that wait for it."""

    order: Order
    ticket: Ticket
    result: asyncio.Future[Entry]
    started: bool = False
    waiting: int = 0


class Work:
    """Takes orders from the queue in their turn, and has them made on threads of its own.

    Used from the event loop's thread alone. timeout: seconds that an order may wait for its turn.
    """

    def __init__(
        self,
        queue: Queue,
        networks: Networks,
        read: ReadSettings,
        cache: Cache | None,
        *,
        timeout: float,
        observe: Callable[[dict[str, float]], None] = lambda seconds: None,
    ) -> None:
        self._queue, self._networks, self._read, self._cache = queue, networks, read, cache
        self._timeout, self._observe = timeout, observe
        self._flights: dict[str, Flight] = {}
        self._places = 0
        self._working = 0
        self._threads: Workers | None = None

    @property
    def working(self) -> int:
        """Pictures at work."""
        return self._working

    def begin(self, places: int) -> None:
        """The default network is loaded: work may begin, on this many pictures at once."""
        self._places = places
        self._threads = Workers(places, "serve")
        self._dispatch()

    def close(self) -> None:
        """End the threads; nothing may be at work."""
        if self._threads is not None:
            self._threads.close()

    def join(self, order: Order, ticket: Ticket) -> Flight:
        """Have an order made, or wait with those who asked for the same before.

        ticket: its place in the queue. Every flight that is returned must be waited for.
        """
        flight = self._flights.get(order.key)
        if flight is None:
            return self._enlist(order, ticket)
        flight.ticket.kept = True
        self._queue.leave(ticket)
        return flight

    async def wait(self, flight: Flight) -> Entry:
        """The result.

        Raises BgxError for a picture that cannot be cut out, FullError where its place was lost,
        Refusal where its turn did not come in time. Where the last who waits is cancelled before
        its turn, the place is given back; what is at work is finished into the cache.
        """
        flight.waiting += 1
        try:
            return await self._wait(flight)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.started:
                self._abandon(flight)

    def _enlist(self, order: Order, ticket: Ticket) -> Flight:
        key, result = order.key, asyncio.get_running_loop().create_future()
        flight = Flight(order, ticket, result)
        # Where all who waited have left, nobody asks for the exception.
        result.add_done_callback(lambda result: result.cancelled() or result.exception())

        def displace(error: FullError) -> None:
            # It does not know the flight, which knows it: pictures in a circle of references would
            # stay until the garbage collector's next full round.
            self._flights.pop(key, None)
            result.set_exception(error)

        ticket.displace = displace
        ticket.ready = True
        self._flights[order.key] = flight
        self._dispatch()
        return flight

    async def _wait(self, flight: Flight) -> Entry:
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(flight.result)
        except TimeoutError:
            if not flight.started:
                raise Refusal(
                    503,
                    "timeout",
                    f"The picture's turn did not come within {self._timeout:g} seconds",
                    retry_after=self._queue.retry_after(),
                ) from None
        return await asyncio.shield(flight.result)

    def _abandon(self, flight: Flight) -> None:
        self._queue.leave(flight.ticket)
        if self._flights.get(flight.order.key) is flight:
            del self._flights[flight.order.key]

    def _dispatch(self) -> None:
        """Begin what has a place and a turn."""
        threads = self._threads
        while threads and self._working < self._places and (ticket := self._queue.next()):
            flight = next(one for one in self._flights.values() if one.ticket is ticket)
            self._queue.start(ticket)
            self._queue.pace.begin()
            flight.started = True
            self._working += 1
            running = asyncio.wrap_future(threads.submit(partial(self._carry_out, flight.order)))
            running.add_done_callback(partial(self._finish, flight))

    def _finish(self, flight: Flight, done: asyncio.Future[Entry]) -> None:
        self._working -= 1
        self._queue.pace.end(flight.order.pixels)
        del self._flights[flight.order.key]
        error = done.exception()
        if error is not None:
            flight.result.set_exception(error)
        else:
            flight.result.set_result(done.result())
            self._observe(done.result().facts["seconds"])
        self._dispatch()

    def _carry_out(self, order: Order) -> Entry:
        """On a thread of its own. Raises BgxError."""
        engine = self._networks.open(order.model).engine
        entry = make_result(order, engine, self._read)
        if self._cache is not None:
            self._cache.put(order.key, entry)
        return entry
