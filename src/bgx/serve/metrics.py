"""Metrics for Prometheus, and the access log."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bgx.machine import memory_used

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)
access = logging.getLogger("bgx.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120)


class Metrics:
    """The server's metrics."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._add(
            Counter, "bgx_requests", "Requests by route and status.", ["route", "status"]
        )
        self.seconds = self._add(
            Histogram,
            "bgx_request_seconds",
            "From a request's first byte to the end of its answer.",
            ["route"],
            buckets=_BUCKETS,
        )
        self.steps = self._add(
            Histogram, "bgx_step_seconds", "A picture's steps.", ["step"], buckets=_BUCKETS
        )
        self.cache = self._add(Counter, "bgx_cache", "Pictures by cache result.", ["result"])
        self.refused = self._add(Counter, "bgx_refused", "Requests refused.", ["reason"])
        memory = self._add(Gauge, "bgx_memory_bytes", "Resident memory of the process.")
        memory.set_function(memory_used)

    def watch(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value ``read`` gives at each scrape."""
        self._add(Gauge, name, help_text).set_function(read)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def observe_steps(self, seconds: dict[str, float]) -> None:
        """Record the seconds of a picture's steps."""
        for step, value in seconds.items():
            self.steps.labels(step).observe(value)

    def _add(self, kind: Any, name: str, help_text: str, *labels: Any, **options: Any) -> Any:
        return kind(name, help_text, *labels, registry=self._registry, **options)


class Observed:
    """ASGI middleware around the whole application: request ids, metrics, and the access log.

    as_json: write the access log as JSON. most_open: largest number of open requests; further ones
    are refused at once. open: number of requests that are not answered yet.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, as_json: bool, most_open: int) -> None:
        self._app, self._metrics = app, metrics
        self._as_json, self._most_open = as_json, most_open
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["state"] = {"request_id": _request_id(scope), "note": ""}
        start = time.monotonic()
        told = {"status": 499, "bytes": 0}  # the client went away before it was answered

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                message["headers"].append((b"x-request-id", scope["state"]["request_id"].encode()))
            elif message["type"] == "http.response.body":
                told["bytes"] += len(message.get("body", b""))
            await send(message)

        self.open += 1
        try:
            if self.open > self._most_open:
                await _refuse(tell)
            else:
                await self._app(scope, receive, tell)
        except Exception:
            # Starlette has answered it with 500.
            log.exception("request %s failed", scope["state"]["request_id"])
        finally:
            self.open -= 1
            self._note(scope, told["status"], told["bytes"], time.monotonic() - start)

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        client = scope.get("client") or ("-", 0)
        values = {
            "client": client[0],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "bytes": size,
            "seconds": round(seconds, 3),
            "cache": scope["state"]["note"],
            "id": scope["state"]["request_id"],
        }
        if self._as_json:
            access.info("%s", json.dumps(values))
        else:
            path = values["path"].encode("unicode_escape").decode()
            access.info(
                "%s %s %s %d %d B %.3f s %s %s",
                *(values["client"], values["method"], path, status, size, seconds),
                *(values["cache"] or "-", values["id"]),
            )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(text):
            return str(text)
    return uuid.uuid4().hex


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b"too many requests are open\n"})
