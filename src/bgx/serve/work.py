"""Runs orders from the queue. Equal orders at the same time are made once, for all requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bgx.serve.making import make_result
from bgx.serve.requests import Refusal
from bgx.threads import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgx.serve.cache import Cache, Entry
    from bgx.serve.making import Order
    from bgx.serve.networks import Networks
    from bgx.serve.queue import FullError, Queue, Ticket
    from bgx.settings import ReadSettings


@dataclass(eq=False, slots=True)
class PendingResult:
    """The result of an order that waits in the queue or is at work.

    waiting: number of requests that wait for it, or have joined and are about to.
    """

    order: Order
    ticket: Ticket
    result: asyncio.Future[Entry]
    started: bool = False
    waiting: int = 0


class Work:
    """Takes orders from the queue in the queue's order, and makes them on threads of its own.

    All methods are for the event loop's thread. timeout: seconds that an order may wait in the
    queue. observe: called with the seconds of each step of a finished picture.
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
        self._pending: dict[str, PendingResult] = {}
        self._places = 0
        self._working = 0
        self._threads: Workers | None = None

    @property
    def working(self) -> int:
        """Pictures at work."""
        return self._working

    def begin(self, places: int) -> None:
        """Start working, on up to ``places`` pictures at once; the default network is loaded."""
        self._places = places
        self._threads = Workers(places, "serve")
        self._dispatch()

    def close(self) -> None:
        """End the threads; nothing may be at work."""
        if self._threads is not None:
            self._threads.close()

    def join(self, order: Order, ticket: Ticket) -> PendingResult:
        """Have an order made, or share the result if an equal order is pending.

        ticket: the order's place in the queue. The caller must call :meth:`wait` with what is
        returned.
        """
        pending = self._pending.get(order.key)
        if pending is None:
            pending = self._enlist(order, ticket)
        else:
            pending.ticket.kept = True
            self._queue.leave(ticket)
        # Not in `wait`, which begins a moment later: another one may leave in between.
        pending.waiting += 1
        return pending

    async def wait(self, pending: PendingResult) -> Entry:
        """Wait for the result.

        Raises BgxError if the picture cannot be cut out, FullError if the order lost its place in
        the queue, Refusal if its turn did not come in time. If all who wait are cancelled before
        its turn, the order leaves the queue; a picture at work is finished and goes to the cache.
        """
        try:
            return await self._wait(pending)
        finally:
            pending.waiting -= 1
            if not pending.waiting and not pending.started:
                self._abandon(pending)

    def _enlist(self, order: Order, ticket: Ticket) -> PendingResult:
        key, result = order.key, asyncio.get_running_loop().create_future()
        pending = PendingResult(order, ticket, result)
        # Retrieve the exception: asyncio would log it if all who waited have left.
        result.add_done_callback(lambda result: result.cancelled() or result.exception())

        def displace(error: FullError) -> None:
            # A closure over key and result, not over the pending result: a reference cycle would
            # keep the photo in memory until the next full garbage collection.
            self._pending.pop(key, None)
            result.set_exception(error)

        ticket.displace = displace
        ticket.ready = True
        self._pending[order.key] = pending
        self._dispatch()
        return pending

    async def _wait(self, pending: PendingResult) -> Entry:
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(pending.result)
        except TimeoutError:
            if not pending.started:
                raise Refusal(
                    503,
                    "timeout",
                    f"The picture's turn did not come within {self._timeout:g} s",
                    retry_after=self._queue.retry_after(),
                ) from None
        return await asyncio.shield(pending.result)

    def _abandon(self, pending: PendingResult) -> None:
        self._queue.leave(pending.ticket)
        if self._pending.get(pending.order.key) is pending:
            del self._pending[pending.order.key]

    def _dispatch(self) -> None:
        """Start orders as long as the queue has one and a thread is free."""
        threads = self._threads
        while threads and self._working < self._places and (ticket := self._queue.next()):
            pending = next(one for one in self._pending.values() if one.ticket is ticket)
            self._queue.start(ticket)
            self._queue.pace.begin()
            pending.started = True
            self._working += 1
            running = asyncio.wrap_future(threads.submit(partial(self._carry_out, pending.order)))
            running.add_done_callback(partial(self._finish, pending))

    def _finish(self, pending: PendingResult, done: asyncio.Future[Entry]) -> None:
        self._working -= 1
        self._queue.pace.end(pending.order.pixels)
        del self._pending[pending.order.key]
        error = done.exception()
        if error is not None:
            pending.result.set_exception(error)
        else:
            pending.result.set_result(done.result())
            self._observe(done.result().facts["seconds"])
        self._dispatch()

    def _carry_out(self, order: Order) -> Entry:
        """Runs on one of the threads. Raises BgxError."""
        engine = self._networks.open(order.model).engine
        entry = make_result(order, engine, self._read)
        if self._cache is not None:
            self._cache.put(order.key, entry)
        return entry
