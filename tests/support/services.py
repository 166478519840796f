"""Servers that tests start, stop and start again: an object store, a Redis."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

PATIENCE = 60  # seconds until a server that does not answer fails its test


class Server:
    """A server process that listens on the same port each time it is started."""

    def __init__(self) -> None:
        self.port = find_free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self._process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while True:
            assert self._process.poll() is None, f"{self.command[0]} ended"
            assert time.monotonic() < end
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Kill it at once, as in a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class ObjectStore(Server):
    """moto's S3 server. It keeps objects in memory: a stop loses them."""

    @property
    def command(self) -> Sequence[str]:
        return (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that lead to this server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-central-1",
        }

    def empty(self, bucket: str) -> None:
        """Delete everything, and make an empty bucket of this name."""
        requests.post(f"http://127.0.0.1:{self.port}/moto-api/reset", timeout=PATIENCE)
        requests.put(f"http://127.0.0.1:{self.port}/{bucket}", timeout=PATIENCE)

    def fill(self, bucket: str, keys: Iterable[str]) -> None:
        """Write objects with these keys, also with keys that bgx cannot name."""
        with requests.Session() as session:
            for key in keys:
                url = f"http://127.0.0.1:{self.port}/{bucket}/{quote(key)}"
                session.put(url, data=b"content", timeout=PATIENCE).raise_for_status()

    def head(self, bucket: str, key: str) -> Mapping[str, str]:
        """The headers of an object. The request's signature is a dummy, which moto accepts."""
        url = f"http://127.0.0.1:{self.port}/{bucket}/{quote(key)}"
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/any/s3/aws4_request"}
        return requests.head(url, headers=signed, timeout=PATIENCE).headers


class Line:
    """A TCP proxy to a port of this machine, whose connection can be cut and mended.

    While it is cut, connections are refused, and those that were open are broken.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = find_free_port()
        self._deaf = False
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def mend(self) -> None:
        self.cut()
        self._deaf = False
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """Cut the connection; returns when no data passes any more."""
        for end in (self._listener, *self._open):
            # This wakes whoever waits for it, as close alone does not.
            with suppress(OSError, AttributeError):
                end.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()

    def lose_answers(self) -> None:
        """Let requests pass, and break the connection at each answer."""
        self._deaf = True

    def _start(self, work: Callable[..., None], *sockets: socket.socket) -> None:
        thread = threading.Thread(target=work, args=sockets, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        with listener, suppress(OSError):
            while True:
                near, _ = listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                else:
                    self._open |= {near, far}
                    self._start(self._carry, near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, suppress(OSError):
            while True:
                for end in select.select([near, far], [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data or (end is far and self._deaf):
                        self._open -= {near, far}
                        return
                    (far if end is near else near).sendall(data)


def find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Redis(Server):
    """A Redis that stores nothing on disk: a stop loses its data."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    @property
    def command(self) -> Sequence[str]:
        return (
            *("redis-server", "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--save", "", "--appendonly", "no"),
        )

    def ask(self, *words: str) -> str:
        """The answer to a command of redis-cli."""
        command = ("redis-cli", "-p", str(self.port), *words)
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
