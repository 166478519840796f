"""Fetches a picture from a URL that a client sent, guarding against SSRF.

The host is resolved once, all its addresses are checked, and the connection goes to one of these
addresses, so that DNS rebinding has no effect. Every redirect is checked in the same way. Proxies
of the environment are not used: they would resolve the host again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

import h11

from bgx import __version__
from bgx.serve.addresses import is_public

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from urllib.parse import SplitResult

_PORTS = {"http": {80, 8080}, "https": {443, 8443}}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOCAL_NAMES = re.compile(
    r"(.*\.)?(localhost|local|localdomain|internal|intranet|lan|home|corp|private|arpa)"
)
_REDIRECTS = {301, 302, 303, 307, 308}
_LONGEST = 4096
_SAFE = "/%:@!$&'()*+,;=~-._?"
_CHUNK = 65536


class FetchError(Exception):
    """The picture could not be fetched; the message may be shown to the client."""


class BadAddressError(FetchError):
    """The URL is malformed, or leads to an address that is not public."""


class OversizeError(FetchError):
    """The picture has more bytes than allowed."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL. host: ASCII. path: with the query, percent-encoded."""

    scheme: str
    host: str
    port: int
    path: str


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the system's order. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def permit_public(address: str, port: int, scheme: str) -> bool:
    """Whether the address is public and the port is one that web servers use."""
    return is_public(address) and port in _PORTS[scheme]


@dataclass(frozen=True)
class Fetcher:
    """Fetches with limits. max_bytes: of the body. seconds: for one picture, redirects included.

    resolve: gives the addresses of a host and port. permit: whether an address, port and scheme may
    be connected to. tls: whose certificates are trusted, None for the system's. Tests replace these
    three.
    """

    max_bytes: int
    seconds: float = 20.0
    max_redirects: int = 5
    resolve: Callable[[str, int], Awaitable[list[str]]] = resolve
    permit: Callable[[str, int, str], bool] = permit_public
    tls: ssl.SSLContext | None = None

    async def fetch(self, url: str) -> bytes:
        """The body at an http or https URL. Raises FetchError."""
        try:
            async with asyncio.timeout(self.seconds):
                return await self._follow(url)
        except TimeoutError:
            raise FetchError(f"no answer within {self.seconds:g} s") from None
        except (OSError, ssl.SSLError, h11.ProtocolError) as error:
            raise FetchError(f"cannot be fetched: {_explain(error)}") from None

    async def _follow(self, url: str) -> bytes:
        for _ in range(self.max_redirects + 1):
            answer = await self._get(parse_target(url))
            if isinstance(answer, bytes):
                return answer
            try:
                url = urljoin(url, answer)
            except ValueError:
                raise BadAddressError("redirects to what is no address") from None
        raise FetchError(f"redirected more than {self.max_redirects} times")

    async def _get(self, target: Target) -> bytes | str:
        """The body, or the Location of a redirect."""
        reader, writer = await self._connect(target)
        try:
            return await self._exchange(target, reader, writer)
        finally:
            # Not close(): nothing more is wanted, and TLS would wait for the server's goodbye.
            writer.transport.abort()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            addresses = await self.resolve(target.host, target.port)
        except (OSError, UnicodeError):
            addresses = []
        # The same message for unknown and for internal hosts: it must not tell which ones exist.
        if not addresses or not all(
            self.permit(address, target.port, target.scheme) for address in addresses
        ):
            raise BadAddressError(f"{target.host}:{target.port} is no public web address")
        secure = target.scheme == "https"
        error = OSError()
        for address in addresses[:3]:
            try:
                return await asyncio.open_connection(
                    address,
                    target.port,
                    ssl=(self.tls or ssl.create_default_context()) if secure else None,
                    server_hostname=target.host if secure else None,
                )
            except OSError as failure:
                error = failure
        raise error

    async def _exchange(
        self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | str:
        connection = h11.Connection(h11.CLIENT)
        named = f"[{target.host}]" if ":" in target.host else target.host
        if target.port != _DEFAULT_PORTS[target.scheme]:
            named += f":{target.port}"
        headers = [
            ("Host", named),
            ("User-Agent", f"bgx/{__version__}"),
            ("Accept", "image/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        request = h11.Request(method="GET", target=target.path, headers=headers)
        for event in (request, h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        body = bytearray()
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(await reader.read(_CHUNK))
                case h11.Response(status_code=status, headers=received):
                    known = {name: value.decode("latin-1") for name, value in received}
                    if status in _REDIRECTS and b"location" in known:
                        # Letters beyond ASCII are sent as UTF-8 by servers that do not escape them.
                        return known[b"location"].encode("latin-1").decode("utf-8", "replace")
                    if status != 200:
                        raise FetchError(f"answered with status {status}")
                    if known.get(b"content-encoding", "identity") != "identity":
                        raise FetchError("answered with a compressed body")
                    self._check(int(known.get(b"content-length", "0")))
                case h11.Data(data=data):
                    self._check(len(body) + len(data))
                    body += data
                case h11.EndOfMessage():
                    return bytes(body)
                case h11.ConnectionClosed() | h11.PAUSED:
                    raise FetchError("the connection ended before the answer did")

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise OversizeError(f"is larger than {self.max_bytes:,} bytes")


def parse_target(url: str) -> Target:
    """Parse and check a URL, except for its host's addresses. Raises BadAddressError."""
    if len(url) > _LONGEST:
        raise BadAddressError("is too long for an address")
    if not url.isprintable() or " " in url or "\\" in url:
        raise BadAddressError("is no address: it has spaces or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _read_host(parts)
    except (ValueError, UnicodeError):
        raise BadAddressError("is no address") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise BadAddressError("is no address of http or https")
    if parts.username is not None or parts.password is not None:
        raise BadAddressError("has a user name in it")
    if _LOCAL_NAMES.fullmatch(host):
        raise BadAddressError("is no public web address")
    path = quote(parts.path or "/", safe=_SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_SAFE)
    return Target(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port, path)


def _read_host(parts: SplitResult) -> str:
    """The host in ASCII. Raises ValueError for a bad name or address."""
    host = parts.hostname or ""
    if ":" in host:
        if "%" in host:
            raise ValueError(host)
        return str(ipaddress.IPv6Address(host))
    host = host.encode("idna").decode().lower().removesuffix(".")
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", host):
        raise ValueError(host)
    last = host.rpartition(".")[2]
    # Systems also take 127.1, 0x7f.1 and 2130706433 for IPv4 addresses; IPv4Address does not.
    if re.fullmatch(r"\d+|0x[0-9a-f]*", last):
        return str(ipaddress.IPv4Address(host))
    return host


def _explain(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, h11.ProtocolError):
        return "its answer is no HTTP"
    return getattr(error, "strerror", None) or type(error).__name__
