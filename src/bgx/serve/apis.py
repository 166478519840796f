"""The three HTTP APIs - bgx's own, remove.bg's, rembg's - with their answers and errors."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from starlette.responses import JSONResponse, Response

from bgx.errors import BackgroundError, DeviceError, ExitCode, ModelError, PictureError, UsageError
from bgx.serve import native, rembg
from bgx.serve.forms import content_type, read_body, read_form
from bgx.serve.making import MEDIA
from bgx.serve.removebg.answer import (
    answer_headers,
    answer_json,
    error_json,
    picture_refusal,
    rate_headers,
    word_refusal,
)
from bgx.serve.removebg.request import FIELDS, parse_request
from bgx.serve.requests import Form, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from bgx.errors import BgxError
    from bgx.serve.cache import Entry
    from bgx.serve.forms import BodyLimits
    from bgx.serve.requests import CutoutRequest

_SUFFIXES = {media: suffix for suffix, media in MEDIA.items()} | {"application/zip": "zip"}
_FLAG = re.compile(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)")
_FORMS = {"multipart/form-data", "application/json", "application/x-www-form-urlencoded"}


class Api(Protocol):
    """An HTTP API: how its requests are read and answered."""

    async def read(
        self, request: Request, limits: BodyLimits, watch: Callable[[], None]
    ) -> CutoutRequest:
        """Read the request and its body. watch: as for :func:`read_form`. Raises Refusal."""

    def answer(
        self, request: Request, wanted: CutoutRequest, key: str | None, entry: Entry
    ) -> Response:
        """The response with a result.

        key: of the result in the cache; None without a cache. Raises Refusal if this API answers
        such a result with an error.
        """

    def refusal_for(self, error: BgxError) -> Refusal:
        """The refusal for a picture that failed."""

    def refuse(self, refusal: Refusal) -> Response:
        """The response with a refusal, in this API's format."""


class NativeApi:
    """``POST /cutouts``."""

    async def read(
        self, request: Request, limits: BodyLimits, watch: Callable[[], None]
    ) -> CutoutRequest:
        body: Form | bytes
        if content_type(request) in _FORMS:
            body = await read_form(request, limits, watch)
        else:
            body = await read_body(request, limits, watch) or Form()
        return native.parse_request(_query(request), body)

    def answer(
        self, request: Request, wanted: CutoutRequest, key: str | None, entry: Entry
    ) -> Response:
        facts = entry.facts
        if _prefers_json(request, entry.media):
            link = {"cutout": f"/cutouts/{key}"} if key else {}
            return JSONResponse(
                {**link, "type": entry.media, "bytes": len(entry.data), **facts},
                headers={"Content-Location": f"/cutouts/{key}"} if key else {},
            )
        headers = {
            "X-Width": str(facts["width"]),
            "X-Height": str(facts["height"]),
            "X-Confidence": str(facts["confidence"]),
            "X-Doubtful": "true" if facts["doubtful"] else "false",
        }
        return _file(entry, key, headers)

    def refusal_for(self, error: BgxError) -> Refusal:
        return refusal_for(error, native.FIELDS)

    def refuse(self, refusal: Refusal) -> Response:
        """``application/problem+json`` (RFC 9457)."""
        problem = {
            "type": "about:blank",
            "title": refusal.title,
            "status": refusal.status,
            "code": refusal.code,
        }
        if refusal.detail:
            problem["detail"] = refusal.detail
        return JSONResponse(
            problem, refusal.status, _headers(refusal), media_type="application/problem+json"
        )


class RemoveBgApi:
    """``POST /v1.0/removebg``. rate: as :meth:`bgx.serve.service.Service.rate`."""

    def __init__(self, rate: Callable[[], tuple[int, int, float]]) -> None:
        self._rate = rate

    async def read(
        self, request: Request, limits: BodyLimits, watch: Callable[[], None]
    ) -> CutoutRequest:
        return parse_request(await read_form(request, limits, watch))

    def answer(
        self, request: Request, wanted: CutoutRequest, key: str | None, entry: Entry
    ) -> Response:
        if entry.facts["bbox"] is None:
            raise picture_refusal("no-subject", "No subject was found in the picture.")
        headers = answer_headers(entry.facts, wanted.kind) | self._headers()
        if _prefers_json(request, entry.media):
            return JSONResponse(answer_json(entry.data, entry.facts), headers=headers)
        return _file(entry, key, headers)

    def refusal_for(self, error: BgxError) -> Refusal:
        if isinstance(error, PictureError) and error.exit_code is not ExitCode.BUG:
            return picture_refusal(error.code, name_fields(str(error), FIELDS))
        if isinstance(error, BackgroundError):
            detail = name_fields(str(error), FIELDS)
            return Refusal(400, "invalid_bg_image_file", "Invalid background image", detail=detail)
        return refusal_for(error, FIELDS)

    def refuse(self, refusal: Refusal) -> Response:
        refusal = word_refusal(refusal)
        return JSONResponse(
            error_json(refusal), refusal.status, _headers(refusal) | self._headers()
        )

    def _headers(self) -> dict[str, str]:
        return rate_headers(*self._rate()) | {"Access-Control-Allow-Origin": "*"}


class RembgApi:
    """``GET|POST /api/remove``."""

    async def read(
        self, request: Request, limits: BodyLimits, watch: Callable[[], None]
    ) -> CutoutRequest:
        if request.method == "POST":
            return rembg.parse_request(_query(request), await read_form(request, limits, watch))
        return rembg.parse_request(_query(request), None)

    def answer(
        self, request: Request, wanted: CutoutRequest, key: str | None, entry: Entry
    ) -> Response:
        return _file(entry, key, {})

    def refusal_for(self, error: BgxError) -> Refusal:
        return refusal_for(error, {})

    def refuse(self, refusal: Refusal) -> Response:
        return JSONResponse(rembg.error_json(refusal), refusal.status, _headers(refusal))


def refusal_for(error: BgxError, fields: Mapping[str, str]) -> Refusal:
    """The refusal for a picture that failed, with bgx's own codes. fields: see name_fields."""
    message = name_fields(str(error), fields)
    match error:
        case PictureError() if error.exit_code is ExitCode.BUG:
            return Refusal(500, error.code, "The picture could not be processed: a fault of bgx")
        case PictureError():
            status = 413 if error.code == "too-large" else 422
            return Refusal(status, error.code, message)
        case UsageError():
            return Refusal(400, error.code, message)
        case ModelError() | DeviceError():
            return Refusal(503, error.code, message)
    return Refusal(500, error.code, "The picture could not be processed")


def name_fields(message: str, fields: Mapping[str, str]) -> str:
    """The message of an error with an API's fields in place of the shell's options.

    fields: the API's names by those of bgx's options; others, such as the server's own, stay.
    """
    return _FLAG.sub(lambda flag: fields.get(flag[1].replace("-", "_"), flag[0]), message)


def _query(request: Request) -> dict[str, str]:
    return dict(request.query_params)


def _prefers_json(request: Request, media: str) -> bool:
    """Whether JSON is more welcome than the picture's media type.

    Who takes both alike gets the picture: clients such as axios send ``application/json,
    text/plain, */*`` unless told otherwise.
    """
    qualities = {}
    for part in ",".join(request.headers.getlist("accept")).lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        given = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        qualities[name] = float(given) if re.fullmatch(r"[01](\.\d*)?", given) else 1.0

    def quality(kind: str) -> float:
        # The most exact range decides (RFC 9110, 12.5.1).
        ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        return next((qualities[name] for name in ranges if name in qualities), 0.0)

    return quality("application/json") > quality(media)


def _file(entry: Entry, key: str | None, headers: dict[str, str]) -> Response:
    suffix = _SUFFIXES.get(entry.media, "bin")
    headers |= {
        "ETag": etag(entry),
        "Content-Disposition": f'inline; filename="cutout.{suffix}"',
        # The answer to a POST; clients may cache the GET of its Content-Location.
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if key:
        headers["Content-Location"] = f"/cutouts/{key}"
    return Response(entry.data, media_type=entry.media, headers=headers)


def etag(entry: Entry) -> str:
    """The entry's strong ETag (RFC 9110, 8.8.3)."""
    return f'"{entry.digest[:32]}"'


def _headers(refusal: Refusal) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
