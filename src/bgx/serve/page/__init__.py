"""The page for people: files without a build step, served as they are."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def routes(read_config: Callable[[], dict[str, Any]]) -> list[Route]:
    """The page at ``/`` and its files below ``/page/``. read_config: what it must know."""
    folder = files(__package__)
    found = [file for file in folder.iterdir() if file.name[file.name.rfind(".") :] in _KINDS]

    async def config(_: Request) -> Response:
        return JSONResponse(read_config(), headers={"Cache-Control": "no-cache"})

    served = {file.name: file.read_bytes() for file in found}
    return [
        Route("/", partial(_send, "index.html", served["index.html"])),
        Route("/page/config.json", config),
        *(
            Route(f"/page/{name}", partial(_send, name, content))
            for name, content in served.items()
        ),
    ]


async def _send(name: str, content: bytes, _: Request) -> Response:
    kind = _KINDS[name[name.rfind(".") :]]
    return Response(content, media_type=kind, headers=_HEADERS)
