"""A real server in a process of its own, and requests to it without any client library."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.http import multipart
from support.shell import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PATIENCE = 240  # of a machine that does much else
_LISTENING = re.compile(r"listening on http://\S+:(\d+)")


@dataclass(frozen=True)
class Answer:
    """What a server answered. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running ``bgx serve``."""

    process: subprocess.Popen[bytes]
    port: int = 0
    lines: list[str] = field(default_factory=list)

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
        """A form as multipart/form-data."""
        body, kind = multipart(texts or {}, files or {})
        return self.request("POST", path, body, {"Content-Type": kind} | _named(headers))

    def send(self, photo: bytes, query: str = "", **headers: str) -> Answer:
        """A photo to bgx's own route."""
        given = {"Content-Type": "image/jpeg"} | _named(headers)
        return self.request("POST", f"/cutouts{query}", photo, given)

    def send_many(self, photos: list[bytes], query: str = "", at_once: int = 64) -> list[Answer]:
        """All at the same time."""
        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(lambda photo: self.send(photo, query), photos))

    def figure(self, name: str) -> float:
        """A figure of /metrics, with its labels as there."""
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def wait_for(self, reached: Callable[[], bool], what: str) -> None:
        """Ask again and again until something holds."""
        end = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < end, f"never: {what}; {self.lines[-20:]}"
            assert self.process.poll() is None, self.lines[-20:]
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextlib.contextmanager
def serving(
    *options: str | Path, env: Mapping[str, str] | None = None, ready: bool = True
) -> Iterator[Server]:
    """Run ``bgx serve`` on a free port. ready: wait until it takes pictures."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    server = Server(process)
    told = threading.Event()
    reader = threading.Thread(target=_read_lines, args=(server, told), daemon=True)
    reader.start()
    try:
        if ready:
            assert told.wait(PATIENCE), server.lines
            assert server.port, server.lines
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        if process.stderr is not None:
            process.stderr.close()


def _read_lines(server: Server, told: threading.Event) -> None:
    stream = server.process.stderr
    if stream is None:
        return
    for line in stream:
        text = line.decode(errors="replace").rstrip()
        server.lines.append(text)
        found = _LISTENING.search(text)
        if found:
            server.port = int(found[1])
            told.set()
    told.set()
