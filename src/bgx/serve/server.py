"""Runs the server's process: listening, signals, and a graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from bgx.errors import ExitCode, UsageError
from bgx.serve.app import make_app
from bgx.serve.linger import Lingering
from bgx.serve.service import Service
from bgx.signals import HANGUP, handling_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import FrameType

    from bgx.serve.metrics import Observed
    from bgx.serve.settings import ServeSettings

log = logging.getLogger(__name__)

_BACKLOG = 2048
_KEEP_ALIVE = 65
"""Seconds; longer than nginx's 60, so that nginx never uses a connection that is being closed."""

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_AGAIN = 60.0
"""Seconds until it is said again that no connection can be accepted."""

_AFTER_TIMEOUT = 60
"""Further seconds at shutdown, after the queue's timeout, for pictures at work."""


def serve(settings: ServeSettings, tell: Callable[[str], None]) -> None:
    """Serve until a signal comes. tell: called with messages for the user.

    Raises UsageError if the address cannot be listened on, OutputError if the cache's folder cannot
    be used, ModelError and DeviceError if the default network cannot be loaded.
    """
    with _listen(settings.host, settings.port) as listener:
        server = _Server(settings, listener.getsockname()[1], tell)
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name != "nt":  # there it would let two servers have one port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--host {host} --port {port}: cannot listen there: {reason}") from None
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server with bgx's startup and shutdown.

    failure: the error that ended it, if any.
    """

    def __init__(self, settings: ServeSettings, port: int, tell: Callable[[str], None]) -> None:
        self.failure: Exception | None = None
        self._settings, self._port, self._tell = settings, port, tell
        self._service = Service(settings)
        self._app: Observed = make_app(self._service)
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = -_AGAIN
        super().__init__(
            uvicorn.Config(
                Lingering(self._app),
                http="h11",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=True,
                forwarded_allow_ips=list(settings.trusted_proxies),
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=5,
                backlog=_BACKLOG,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and start loading the default network."""
        asyncio.get_running_loop().set_exception_handler(self._explain)
        await super().startup(sockets)
        self._begin(self._load())

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Shut down gracefully at the first signal and at once at the second, unless it is SIGHUP,
        which may be sent twice when a terminal is closed."""
        loop = asyncio.get_running_loop()

        def handle(number: int, _: FrameType | None) -> None:
            if not self._service.draining:
                self._service.draining = True
                loop.call_soon_threadsafe(lambda: self._begin(self._drain()))
            elif number != HANGUP:
                os._exit(ExitCode.INTERRUPTED)

        with handling_stop(handle):
            yield

    def _explain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error of the event loop.

        If there are no file descriptors left, asyncio tries to accept a connection as often in a
        second as the backlog is long, and would log a traceback each time.
        """
        error = context.get("exception")
        if not (
            "socket" in context and isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES
        ):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._said >= _AGAIN:
            self._said = time.monotonic()
            log.warning("no connection can be accepted at the moment: %s", error.strerror)

    def _begin(self, task: Coroutine[Any, Any, None]) -> None:
        running = asyncio.ensure_future(task)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    async def _load(self) -> None:
        try:
            await self._service.load()
        except Exception as error:  # noqa: BLE001 - raised by `serve`
            self.failure = error
            self.should_exit = True
            return
        opened = self._service.networks.open(self._settings.models[0])
        host = self._settings.host
        shown = f"[{host}]" if ":" in host else host
        self._tell(
            f"listening on http://{shown}:{self._port} with {opened.name} on {opened.device}"
        )

    async def _drain(self) -> None:
        """Answer all accepted requests, then end."""
        self._tell("shutting down: answering what was accepted; press Ctrl-C again to stop at once")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timeout + _AFTER_TIMEOUT):
                while self._app.open or self._service.work.working:
                    await asyncio.sleep(0.05)
        self.should_exit = True
