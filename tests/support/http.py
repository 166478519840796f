"""Bodies of HTTP requests, made without a client library."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

BOUNDARY = "----bgx-test-boundary"


def multipart(texts: Mapping[str, str], files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A multipart/form-data body and its content type."""
    parts = [
        (f'form-data; name="{name}"', text.encode("utf-8")) for name, text in texts.items()
    ] + [(f'form-data; name="{name}"; filename="{name}.jpg"', data) for name, data in files.items()]
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


async def request(
    app: Any, method: str, path: str, fields: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """An answer's status and body, by the protocol that servers speak with applications."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"content-type", b"application/json")],
        "client": ("10.0.0.1", 1),
        "root_path": "",
    }
    bodies = [json.dumps(fields).encode()] if fields else [b""]
    gone = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if bodies:
            return {"type": "http.request", "body": bodies.pop()}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], body
