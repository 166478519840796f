"""The routes of the application."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bgx.serve import page
from bgx.serve.apis import NativeApi, RembgApi, RemoveBgApi, etag
from bgx.serve.metrics import Observed
from bgx.serve.openapi import describe_api, show_api
from bgx.serve.removebg.answer import ACCOUNT
from bgx.serve.requests import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from bgx.serve.apis import Api
    from bgx.serve.service import Service

_OPEN_BESIDE_QUEUE = 256
"""Open requests in addition to the queue: cache hits, shared results, slow clients."""

_FOREVER = "public, max-age=31536000, immutable"


def make_app(service: Service) -> Observed:
    """The ASGI application of a service."""
    settings = service.settings
    native, rembg = NativeApi(), RembgApi()
    remove_bg = RemoveBgApi(service.rate)

    def post(api: Api) -> Callable[[Request], Awaitable[Response]]:
        return partial(service.cut, api)

    def api_of(request: Request) -> Api:
        """The API whose form of errors a request expects."""
        path = request.url.path
        if path.startswith("/v1.0/"):
            return remove_bg
        return rembg if path == "/api/remove" else native

    async def account(request: Request) -> Response:
        try:
            service.keys.identify(request)
        except Refusal as refusal:
            return remove_bg.refuse(refusal)
        return JSONResponse(ACCOUNT, headers={"Access-Control-Allow-Origin": "*"})

    async def cutout(request: Request) -> Response:
        entry = await service.find(request.path_params["key"])
        request.state.note = "miss" if entry is None else "hit"
        if entry is None:
            return native.refuse(Refusal(404, "not-found", "There is no such cut-out, or no more"))
        tag = etag(entry)
        headers = {"ETag": tag, "Cache-Control": _FOREVER, "X-Content-Type-Options": "nosniff"}
        if _matches(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        return Response(entry.data, media_type=entry.media, headers=headers)

    async def alive(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        if service.draining or not service.loaded:
            state = "draining" if service.draining else "starting"
            return PlainTextResponse(f"{state}\n", 503)
        return PlainTextResponse("ready\n")

    async def figures(_: Request) -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")

    async def openapi(_: Request) -> Response:
        return JSONResponse(describe_api(service.networks.names))

    async def refuse(request: Request, error: Any) -> Response:
        """Answer requests for unknown paths and methods."""
        refusal = Refusal(error.status_code, "no-route", str(error.detail))
        response = api_of(request).refuse(refusal)
        response.headers.update(error.headers or {})
        return response

    async def fail(request: Request, _: Exception) -> Response:
        return api_of(request).refuse(Refusal(500, "bug", "The server failed; its log says where"))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await service.close()

    routes = [
        Route("/cutouts", post(native), methods=["POST"]),
        Route("/cutouts/{key:str}", cutout, methods=["GET"]),
        Route("/v1.0/removebg", post(remove_bg), methods=["POST"]),
        Route("/v1.0/account", account, methods=["GET"]),
        Route("/api/remove", post(rembg), methods=["GET", "POST"]),
        Route("/livez", alive),
        Route("/readyz", ready),
        Route("/metrics", figures),
        Route("/openapi.json", openapi),
        Route("/api", show_api),
    ]
    if settings.page:
        routes += page.routes(service.describe)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors,
        allow_methods=["GET", "POST"],
        # Upload libraries add X-Requested-With, Cache-Control and others.
        allow_headers=["*"],
        expose_headers=["*"],
    )
    app = Starlette(
        routes=routes,
        middleware=[cors] if settings.cors else [],
        exception_handlers={404: refuse, 405: refuse, Exception: fail},
        lifespan=lifespan,
    )
    app.state.models = lambda: service.networks.names
    observed = Observed(
        app,
        service.metrics,
        as_json=settings.log_json,
        most_open=settings.queue + _OPEN_BESIDE_QUEUE,
    )
    service.metrics.watch("bgx_open", "Requests that are not answered yet.", lambda: observed.open)
    return observed


def _matches(condition: str, tag: str) -> bool:
    """Whether If-None-Match contains this ETag (weak comparison, RFC 9110, 13.1.2)."""
    given = [part.strip().removeprefix("W/") for part in condition.split(",")]
    return "*" in given or tag in given
