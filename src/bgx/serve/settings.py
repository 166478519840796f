"""Settings of ``bgx serve``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bgx.errors import UsageError
from bgx.parsers import parse_bytes
from bgx.serve.queue import Load
from bgx.settings import DeviceSettings, ModelSettings, ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_MAX_BODY = "22MB"
DEFAULT_CACHE_SIZE = "2GB"

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#A-Z\s]+")
"""An origin as browsers send it: without a path, and with the host in lower case."""

_PIXELS_PER_PLACE = 12_000_000
_LEAST_BYTES = 128_000_000


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the server runs.

    models: names of networks, the first is the default; None is bgx's default. queue: requests
    that may wait. keys: API keys, none for a server open to all. max_body: bytes of a photo. cache:
    folder of the cache, None for no cache; cache_size: bytes in it. fetch_urls: whether
    pictures are fetched from addresses that requests name. cors: origins of other sites whose pages
    may call; ``*`` for any. page: whether the page for people is served. timeout: seconds that a
    request waits for its turn, and that a body may take to arrive. trusted_proxies: addresses whose
    X-Forwarded-For is believed. log_json: access lines as JSON.
    """

    host: str = "127.0.0.1"
    port: int = 7000
    models: tuple[str | None, ...] = (None,)
    model_files: ModelSettings = field(default_factory=ModelSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    read: ReadSettings = field(default_factory=lambda: ReadSettings(max_pixels=50_000_000))
    queue: int = 64
    keys: frozenset[str] = field(default=frozenset(), repr=False)
    max_body: int = parse_bytes(DEFAULT_MAX_BODY)
    cache: Path | None = None
    cache_size: int = parse_bytes(DEFAULT_CACHE_SIZE)
    fetch_urls: bool = False
    cors: tuple[str, ...] = ()
    page: bool = True
    timeout: float = 60.0
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    log_json: bool = False

    def __post_init__(self) -> None:
        if self.queue < 1:
            raise UsageError(f"--queue {self.queue}: use 1 or more")
        if not self.timeout > 0:  # neither is NaN
            raise UsageError(f"--timeout {self.timeout:g}: use more than 0 seconds")
        if self.max_body < 1000:
            raise UsageError(f"--max-body {self.max_body}: use 1kB or more")
        for key in self.keys:
            if not key.isascii() or not key.isprintable() or " " in key or not key:
                raise UsageError(
                    "--api-key, --api-keys: use printable ASCII characters without spaces"
                )
        for origin in self.cors:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"--cors {origin}: use an origin, in lower case and without a slash at its end "
                    "(https://shop.example), or *"
                )
        for proxy in self.trusted_proxies:
            if proxy != "*" and not _is_network(proxy):
                raise UsageError(
                    f"--trust-proxy {proxy}: use an address (10.0.0.2) or a network (10.0.0.0/8)"
                )

    @property
    def waiting(self) -> Load:
        """Limit of the queue, in requests, pixels and bytes."""
        return Load(
            self.queue,
            max(self.queue * _PIXELS_PER_PLACE, self.read.max_pixels),
            max(_LEAST_BYTES, 4 * self.max_body),
        )


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
