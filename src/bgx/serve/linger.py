"""Closes connections whose request was answered before its whole body had arrived.

That happens with a wrong key or a full queue. Clients such as Node's stop sending once they are
answered, and would then wait for the server as it waits for them, so the answer says ``Connection:
close``. Closing at once would reset the connection, and the client might lose the answer. So what
still arrives is read and dropped for a while, as nginx does (``lingering_close``).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_IDLE_S = 5.0
"""Longest pause between two pieces of the body, seconds."""

_LONGEST_S = 30.0
"""Longest time for the rest of the body, seconds."""


class Lingering:
    """The ASGI application, with a lingering close after early answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unread = _has_body(scope)
        early = False

        async def read() -> Message:
            nonlocal unread
            message = await receive()
            # Also ends if the client has disconnected.
            unread = unread and bool(message.get("more_body"))
            return message

        async def drop_rest() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_S):
                    while unread:
                        await asyncio.wait_for(read(), _IDLE_S)

        async def answer(message: Message) -> None:
            nonlocal early
            if message["type"] == "http.response.start" and unread:
                early = True
                message["headers"].append((b"connection", b"close"))
            if early and message["type"] == "http.response.body" and not message.get("more_body"):
                await send({**message, "more_body": True})
                await drop_rest()
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, read, answer)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
