"""Fetches the pictures that requests name by a URL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bgx.serve.fetch import BadAddressError, FetchError, OversizeError
from bgx.serve.requests import Refusal

if TYPE_CHECKING:
    from bgx.serve.fetch import Fetcher
    from bgx.serve.requests import Link

_AT_ONCE = 6
"""Pictures fetched at once; the queue does not count their bytes until they are complete."""


class Links:
    """Fetches pictures, a few at once.

    fetcher: None if this server fetches none. timeout: seconds for one picture, including the wait
    for its turn.
    """

    def __init__(self, fetcher: Fetcher | None, timeout: float) -> None:
        self._fetcher, self._timeout = fetcher, timeout
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, link: Link) -> bytes:
        """The picture's bytes. Raises Refusal."""
        if self._fetcher is None:
            raise Refusal(
                400,
                link.off,
                "This server does not fetch addresses: send the picture itself (or start bgx "
                "serve with --fetch-urls)",
            )
        try:
            async with asyncio.timeout(self._timeout), self._turns:
                return await self._fetcher.fetch(link.url)
        except TimeoutError:
            raise Refusal(
                503, "timeout", "Too many pictures are being fetched", retry_after=5
            ) from None
        except OversizeError as error:
            raise Refusal(413, "too-many-bytes", f"The picture {error}") from None
        except FetchError as error:
            raise link.refuse(str(error), isinstance(error, BadAddressError)) from None
