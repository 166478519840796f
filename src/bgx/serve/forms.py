"""Reads a request's body, with limits on size and time, and without temporary files.

Starlette's own form reader writes large files to temporary files; here, photos are written only to
the cache.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from bgx.serve.requests import Form, Refusal
from bgx.threads import begin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

_OVERHEAD = 65_536
"""Bytes allowed for boundaries, headers and the other fields."""

_FIELDS = 64
"""Fields of a form, at most."""

_ENCODED_NAME = re.compile(rb";\s*filename\*\s*=", re.IGNORECASE)
"""A file's name in the form of RFC 8187, which python-multipart passes over."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """size: largest size of one file, bytes. seconds: time for the whole body to arrive."""

    size: int
    seconds: float

    def of_body(self, kind: str) -> int:
        """The largest body of a content type."""
        match kind:
            case "multipart/form-data":  # a photo and a background
                return 2 * self.size + _OVERHEAD
            case "application/json" | "application/x-www-form-urlencoded":  # base64, escaped
                return self.size * 3 // 2 + _OVERHEAD
        return self.size


def content_type(request: Request) -> str:
    """The media type in lower case, without parameters; empty if the header is missing."""
    name, _ = parse_options_header(request.headers.get("content-type"))
    return name.decode("latin-1").strip().lower()


def body_length(request: Request) -> int | None:
    """The Content-Length, bytes; None if it is missing or malformed."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def check_head(request: Request, limits: BodyLimits) -> None:
    """Raise Refusal if the headers alone show that the body will not be accepted."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "unsupported-encoding", "Send the body without a content encoding")
    if (body_length(request) or 0) > limits.of_body(content_type(request)):
        raise _too_large(limits)


def check_size(file: bytes, limits: BodyLimits) -> None:
    """Raise Refusal if a file that came as text, in base64, is too large."""
    if len(file) > limits.size:
        raise _too_large(limits)


async def read_form(request: Request, limits: BodyLimits, watch: Callable[[], None]) -> Form:
    """The fields of a form in any of the three content types. Raises Refusal.

    watch: called for every chunk that arrives; may raise an exception to stop reading.
    """
    kind = content_type(request)
    if kind == "multipart/form-data":
        return await _read_multipart(request, limits, watch)
    if kind not in ("application/json", "application/x-www-form-urlencoded"):
        raise Refusal(
            415,
            "unsupported-type",
            "Content-Type must be multipart/form-data, application/x-www-form-urlencoded or "
            "application/json",
        )
    body = await read_body(request, limits, watch)
    parse = _parse_json if kind == "application/json" else _parse_urlencoded
    return await asyncio.wrap_future(begin(partial(parse, body), "form"))


async def read_body(request: Request, limits: BodyLimits, watch: Callable[[], None]) -> bytes:
    """The whole body. Raises Refusal."""
    body = bytearray()
    async for piece in _stream(request, limits, watch):
        body += piece
    return bytes(body)


async def _stream(
    request: Request, limits: BodyLimits, watch: Callable[[], None]
) -> AsyncIterator[bytes]:
    left = limits.of_body(content_type(request))
    try:
        async with asyncio.timeout(limits.seconds):
            async for piece in request.stream():
                watch()
                left -= len(piece)
                if left < 0:
                    raise _too_large(limits)
                yield piece
    except TimeoutError:
        raise Refusal(
            408, "slow-body", f"The body did not arrive within {limits.seconds:g} s"
        ) from None


async def _read_multipart(request: Request, limits: BodyLimits, watch: Callable[[], None]) -> Form:
    _, parameters = parse_options_header(request.headers.get("content-type"))
    boundary = parameters.get(b"boundary")
    if not boundary:
        # Set by hand in many a program.
        raise _malformed("its Content-Type has no boundary; let your HTTP client write this header")
    collected = _Collected(limits)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collected.begin_part,
                "on_header_field": collected.add_name,
                "on_header_value": collected.add_value,
                "on_header_end": collected.end_header,
                "on_headers_finished": collected.begin_data,
                "on_part_data": collected.add_data,
                "on_part_end": collected.end_part,
                "on_end": collected.end,
            },
        )
        async for piece in _stream(request, limits, watch):
            parser.write(piece)
    except FormParserError as error:
        raise _malformed(f"it is no multipart/form-data: {error}") from None
    if not collected.ended:
        raise _malformed("it ends before its last boundary")
    return Form(collected.texts, collected.files)


class _Collected:
    """Collects the parts of a multipart body from the parser's callbacks."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self.texts: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.ended = False

    def begin_part(self) -> None:
        self._header, self._value, self._disposition = b"", b"", b""
        self._data = bytearray()

    def add_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def begin_data(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        if b"name" not in options:
            raise _malformed("a part has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        # Only filename* is sent of a name beyond ASCII by some clients, such as older requests.
        self._is_file = b"filename" in options or bool(_ENCODED_NAME.search(self._disposition))
        self._is_named = options.get(b"filename") != b""
        if len(self.texts) + len(self.files) >= _FIELDS:
            raise _malformed(f"it has more than {_FIELDS} fields")
        if self._is_file and self._name in self.files:
            raise _malformed(f"{self._name} is there twice")

    def add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]
        if self._is_file and len(self._data) > self._limits.size:
            raise _too_large(self._limits)

    def end_part(self) -> None:
        if self._is_file:
            # A browser's form sends nothing without a name where no file was chosen.
            if self._data or self._is_named:
                self.files[self._name] = bytes(self._data)
        else:
            self.texts[self._name] = self._data.decode("utf-8", "replace")

    def end(self) -> None:
        self.ended = True


def _parse_urlencoded(body: bytes) -> Form:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        # Such as curl's --data-binary without a Content-Type.
        raise _malformed(
            "it is no application/x-www-form-urlencoded; a photo needs a Content-Type of its own"
        ) from None
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        raise _malformed(f"it has more than {_FIELDS} fields") from None
    return Form(dict(pairs))


def _parse_json(body: bytes) -> Form:
    """A JSON object as a form: numbers keep their text, and null counts as left out."""
    try:
        fields = json.loads(body, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        raise _malformed("it is no JSON") from None
    if not isinstance(fields, dict):
        raise _malformed("it must be a JSON object")
    texts = {name: _to_text(name, value) for name, value in fields.items() if value is not None}
    return Form({_clean(name): text for name, text in texts.items()})


def _to_text(name: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _clean(value)
    raise _malformed(f"{_clean(name)[:40]} must be a text")


def _clean(text: str) -> str:
    """Replace lone surrogates, which JSON can contain and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _malformed(reason: str) -> Refusal:
    return Refusal(400, "malformed-body", "The body cannot be read", detail=reason)


def _too_large(limits: BodyLimits) -> Refusal:
    return Refusal(
        413, "too-many-bytes", f"The file is larger than {limits.size:,} bytes, the most taken"
    )
