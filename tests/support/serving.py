"""A real server in a process of its own, and requests to it without any client library."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.http import multipart
from support.processes import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PATIENCE = 240  # of a machine that does much else
_LISTENING = re.compile(r"listening on http://\S+:(\d+)")


@dataclass(frozen=True)
class Answer:
    """A server's response. headers: by names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server(Running):
    """A running ``bgx serve``."""

    port: int = 0
    patience = PATIENCE

    def take(self, line: str) -> None:
        super().take(line)
        if found := _LISTENING.search(line):
            self.port = int(found[1])

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            given = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, given, response.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=_named(headers))

    def post(
        self,
        path: str,
        texts: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
        **headers: str,
    ) -> Answer:
        """Send a form as multipart/form-data."""
        body, kind = multipart(texts or {}, files or {})
        return self.request("POST", path, body, {"Content-Type": kind} | _named(headers))

    def send(self, photo: bytes, query: str = "", **headers: str) -> Answer:
        """Send a photo to bgx's own API."""
        given = {"Content-Type": "image/jpeg"} | _named(headers)
        return self.request("POST", f"/cutouts{query}", photo, given)

    def send_many(self, photos: list[bytes], query: str = "", at_once: int = 64) -> list[Answer]:
        """Send all photos, up to ``at_once`` at the same time."""
        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(lambda photo: self.send(photo, query), photos))

    def figure(self, name: str) -> float:
        """The value of a metric of /metrics; name: with its labels, as it is written there."""
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextlib.contextmanager
def serving(
    *options: str | Path,
    env: Mapping[str, str] | None = None,
    group: Path | None = None,
    ready: bool = True,
) -> Iterator[Server]:
    """Run ``bgx serve`` on a free port. ready: wait until it takes pictures."""
    with running(Server, "serve", "--port", "0", *options, env=env, group=group) as server:
        if ready:
            server.wait_for(lambda: server.port > 0, "listening")
        yield server
