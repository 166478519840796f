"""Servers on this machine that stand for public ones, and the names by which they are known."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from bgx.serve.fetch import Fetcher, permit_public

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable


class Net:
    """Servers on this machine and the names by which they are known."""

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.ports: set[int] = set()
        self.asked: list[str] = []
        self.requests: list[bytes] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        """Resolve a name: each call gives the next of its answers, and then always the last."""
        self.asked.append(host)
        answers = self.names.get(host)
        if answers is None:
            if host.replace(".", "").isdigit():
                return [host]
            raise OSError("unknown name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def permit(self, address: str, port: int, scheme: str) -> bool:
        """Permit what the real server does, and this net's servers at 127.0.0.1."""
        return (address == "127.0.0.1" and port in self.ports) or permit_public(
            address, port, scheme
        )

    def fetcher(self, **settings: Any) -> Fetcher:
        chosen = {"max_bytes": 1000, "seconds": 10.0} | settings
        return Fetcher(resolve=self.resolve, permit=self.permit, **chosen)

    @contextlib.asynccontextmanager
    async def serve(
        self,
        answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
        *,
        known: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[int]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
        async with server:
            port: int = server.sockets[0].getsockname()[1]
            if known:
                self.ports.add(port)
            yield port


def ok(body: bytes, *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
