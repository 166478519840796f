"""Requests written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
