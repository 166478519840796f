"""Pictures that a request names by an address instead of sending them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bgx.serve.asks import Refusal
from bgx.serve.fetch import BadAddressError, FetchError, OversizeError

if TYPE_CHECKING:
    from bgx.serve.asks import Link
    from bgx.serve.fetch import Fetcher

_AT_ONCE = 6
"""Pictures fetched at once; as many bytes as these have are in no account yet."""


class Links:
    """Fetches what requests point to, few at a time.

    fetcher: None refuses all. timeout: seconds that one may take, the wait for its turn included.
    """

    def __init__(self, fetcher: Fetcher | None, timeout: float) -> None:
        self._fetcher, self._timeout = fetcher, timeout
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, link: Link) -> bytes:
        """The picture. Raises Refusal."""
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
