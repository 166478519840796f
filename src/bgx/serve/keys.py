"""Identifies clients: by API key, or by network address."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import TYPE_CHECKING

from bgx.errors import UsageError
from bgx.serve.requests import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from starlette.requests import Request


class Keys:
    """The valid API keys; if there are none, everybody is served."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def identify(self, request: Request) -> str:
        """The client that a request counts for: its key, or its address if there are no keys.

        Raises Refusal (401).
        """
        if not self._digests:
            return _address(request)
        given = request.headers.get("x-api-key") or _bearer(request)
        digest = _digest(given)
        # All are compared, also after a match: the time must not reveal which one matched.
        if not sum([hmac.compare_digest(digest, known) for known in self._digests]):
            raise Refusal(401, "unauthorized", "A valid API key is needed: send it as X-API-Key")
        return f"key {digest.hex()[:8]}"


def read_keys(path: Path) -> list[str]:
    """Read one key per line; empty lines and lines that begin with # are skipped.

    Raises UsageError, also if there are no keys: the server would be open to all.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-keys {path}: cannot be read: {error}") from None
    keys = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    if not keys:
        raise UsageError(f"--api-keys {path}: contains no keys; write one on each line")
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _address(request: Request) -> str:
    """The client's IPv4 address, or its IPv6 network of 64 bits: one subscriber has all of it."""
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((address, 64), strict=False).network_address)
    return str(getattr(address, "ipv4_mapped", None) or address)
