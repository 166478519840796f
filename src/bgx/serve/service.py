"""Answers a request for a picture: key, queue, body, cache, network, result."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from bgx.errors import BgxError
from bgx.presets import load_presets
from bgx.serve.cache import Cache, compute_address
from bgx.serve.fetch import Fetcher
from bgx.serve.forms import BodyLimits, body_length, check_head, check_size
from bgx.serve.keys import Keys
from bgx.serve.links import Links
from bgx.serve.metrics import Metrics
from bgx.serve.networks import Networks, code_fingerprint
from bgx.serve.orders import make_order
from bgx.serve.places import Place
from bgx.serve.queue import FullError, Load, Queue
from bgx.serve.requests import Link, Refusal
from bgx.serve.work import Work
from bgx.threads import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from starlette.requests import Request

    from bgx.serve.apis import Api
    from bgx.serve.cache import Entry
    from bgx.serve.networks import Opened
    from bgx.serve.requests import CutoutRequest
    from bgx.serve.settings import ServeSettings
    from bgx.serve.work import PendingResult

_Result = TypeVar("_Result")

_PIXELS_PER_BYTE = 3
"""Estimate for a photo whose header has not been read: that of a JPEG of medium quality."""


class Service:
    """All parts of a running server. Made and used on the event loop's thread.

    fetcher: in place of the default one; for tests. draining: the server is shutting
    down and takes no more requests. loaded: the default network is ready.
    """

    def __init__(self, settings: ServeSettings, *, fetcher: Fetcher | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.keys = Keys(settings.keys)
        self.networks = Networks(settings)
        self.cache = Cache(settings.cache, settings.cache_size) if settings.cache else None
        self.queue = Queue(settings.waiting, time.monotonic)
        self.work = Work(
            self.queue,
            self.networks,
            settings.read,
            self.cache,
            timeout=settings.timeout,
            observe=self.metrics.observe_steps,
        )
        fetcher = fetcher or Fetcher(max_bytes=settings.max_body)
        self._links = Links(fetcher if settings.fetch_urls else None, settings.timeout)
        self.limits = BodyLimits(settings.max_body, settings.timeout)
        self.draining = False
        self.loaded = False
        # For hashing, reading headers and the cache's files; networks are loaded on another thread.
        self._side = Workers(4, "side")
        self._loader = Workers(1, "load")
        self._fingerprint = code_fingerprint()
        secret = secrets.token_bytes(32)
        self._address = self.cache.address if self.cache else partial(compute_address, secret)
        self.metrics.watch("bgx_waiting", "Requests that wait.", lambda: self._waiting.requests)
        self.metrics.watch("bgx_waiting_pixels", "Their pixels.", lambda: self._waiting.pixels)
        self.metrics.watch("bgx_working", "Pictures at work.", lambda: self.work.working)

    @property
    def _waiting(self) -> Load:
        return self.queue.waiting

    async def load(self) -> None:
        """Load the default network and begin to work. Raises ModelError and DeviceError."""
        opened = await self._open(self.settings.models[0])
        places = await self._run(self._loader, opened.engine.places)
        self.work.begin(places)
        self.loaded = True

    async def close(self) -> None:
        """Finish what is at work."""
        self.work.close()
        self._side.close()
        self._loader.close()
        self.networks.close()
        if self.cache:
            self.cache.close()

    def rate(self) -> tuple[int, int, float]:
        """The queue's places, how many of them are free, and seconds until all are free."""
        waiting = self.queue.waiting.requests
        limit = self.queue.limit.requests
        return limit, limit - waiting, self.queue.retry_after() if waiting else 0

    def describe(self) -> dict[str, Any]:
        """Facts for the web page, as JSON values.

        revision: changes whenever the same photo and options could give another result.
        """
        names = self.networks.names
        opened = self.networks.get(self.settings.models[0])
        identity = opened.identity if opened else {}
        return {
            "models": names,
            "presets": {name: preset.rule for name, preset in load_presets().items()},
            "max_body": self.settings.max_body,
            "needs_key": bool(self.settings.keys),
            "revision": self._address(code=self._fingerprint, names=names, **identity)[:16],
        }

    async def cut(self, api: Api, request: Request) -> Response:
        """Answer a request for a picture."""
        try:
            return await self._answer(api, request)
        except Refusal as refusal:
            self.metrics.refused.labels(refusal.code[:40]).inc()
            return api.refuse(refusal)
        except FullError as error:
            return api.refuse(self._refuse_full(error))
        except BgxError as error:
            return api.refuse(api.refusal_for(error))
        except ClientDisconnect:
            return Response(status_code=499)

    async def find(self, key: str) -> Entry | None:
        """A cached result by its address."""
        if self.cache is None:
            return None
        return await self._run(self._side, partial(self.cache.get, key))

    async def _answer(self, api: Api, request: Request) -> Response:
        client = self.keys.identify(request)
        if self.draining:
            raise Refusal(503, "draining", "The server is shutting down", retry_after=5)
        check_head(request, self.limits)
        with self._place(client, request) as place:
            wanted, key, pending = await self._begin(api, request, place)
        entry, hit = await _unless_gone(request, pending)
        self.metrics.cache.labels("hit" if hit else "miss").inc()
        request.state.note = "hit" if hit else "miss"
        response = api.answer(request, wanted, key if self.cache else None, entry)
        response.headers["X-Cache"] = request.state.note
        return response

    async def _begin(
        self, api: Api, request: Request, place: Place
    ) -> tuple[CutoutRequest, str, Coroutine[Any, Any, tuple[Entry, bool]]]:
        """Read the request and put it to work.

        Returns what was asked for, the result's key, and a coroutine that gives the result and
        whether it was cached. None of them holds the photo: only the order does while it waits.
        """
        wanted = await api.read(request, self.limits, place.check)
        model = self.networks.choose(wanted.model)
        source = await self._take(wanted.source, place)
        background = (
            None if wanted.background is None else await self._take(wanted.background, place)
        )
        opened = await self._open(model)
        order = await self._run(
            self._side,
            partial(
                make_order,
                wanted,
                source,
                background,
                model=model,
                identity=opened.identity | {"code": self._fingerprint},
                read=self.settings.read,
                address=self._address,
            ),
        )
        place.change(Load(1, order.pixels, len(source) + len(background or b"")))
        entry = await self.find(order.key)
        if entry is not None:
            return wanted.without_pictures(), order.key, _already(entry)
        pending = self.work.join(order, place.hand_over())
        return wanted.without_pictures(), order.key, self._wait(pending)

    async def _wait(self, pending: PendingResult) -> tuple[Entry, bool]:
        return await self.work.wait(pending), False

    async def _open(self, model: str | None) -> Opened:
        """The network, loaded if it is not. A request for a loaded one never waits for another."""
        opened = self.networks.get(model)
        if opened is None:
            opened = await self._run(self._loader, partial(self.networks.open, model))
        return opened

    async def _take(self, source: bytes | Link, place: Place) -> bytes:
        """The picture's bytes. What is fetched from a URL is added to the request's load."""
        if isinstance(source, bytes):
            check_size(source, self.limits)
            return source
        data = await self._links.fetch(source)
        place.add_bytes(len(data))
        return data

    @contextlib.contextmanager
    def _place(self, client: str, request: Request) -> Iterator[Place]:
        """A place in the queue for as long as the block runs, or until it is handed over."""
        length = body_length(request)
        size = self.settings.max_body if length is None else length
        pixels = min(self.settings.read.max_pixels, size * _PIXELS_PER_BYTE)
        place = Place(self.queue, client, Load(1, pixels, size))
        try:
            yield place
        finally:
            place.leave()

    def _refuse_full(self, error: FullError) -> Refusal:
        self.metrics.refused.labels("queue-full").inc()
        return Refusal(
            429,
            "queue-full",
            f"Too many requests are waiting; try again in {error.retry_after} s",
            retry_after=error.retry_after,
        )

    @staticmethod
    async def _run(threads: Workers, call: Callable[[], _Result]) -> _Result:
        return await asyncio.wrap_future(threads.submit(call))


async def _already(entry: Entry) -> tuple[Entry, bool]:
    return entry, True


async def _unless_gone(request: Request, pending: Coroutine[Any, Any, _Result]) -> _Result:
    """The result, or ClientDisconnect as soon as the client has gone."""
    result = asyncio.ensure_future(pending)
    gone = asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        for task in (result, gone):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
