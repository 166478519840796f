"""remove.bg's answers: headers and JSON of results and of errors."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

from bgx.image.canvas import place
from bgx.options import CanvasSettings
from bgx.serve.removebg.fields import refuse
from bgx.serve.removebg.request import FULL_MEGAPIXELS
from bgx.serve.requests import Refusal
from bgx.settings import Area

if TYPE_CHECKING:
    from collections.abc import Mapping


def picture_refusal(code: str, message: str) -> Refusal:
    """The refusal for a picture that bgx could not cut out. code: of bgx's error."""
    match code:
        case "too-large":
            return refuse("resolution_too_high", "Image resolution too high", message)
        case "no-subject":
            return refuse(
                "unknown_foreground",
                "Could not identify foreground in image",
                message,
            )
        case "region":
            return refuse("roi_exceeds_bounds", "The roi exceeds the image's bounds", message)
        case "region-empty":
            return refuse("roi_region_empty", "The roi is empty", message)
        case "unreadable":
            return refuse("failed_to_read_image", "Failed to read the image", message)
    return Refusal(500, "processing_failed", "The image could not be processed", detail=message)


_WORDED = {
    "too-many-bytes": (400, "file_too_large", "File too large"),
    "unauthorized": (403, "auth_failed", "API Key invalid"),
    "queue-full": (429, "rate_limit_exceeded", "Rate limit exceeded"),
    "urls-off": (400, "invalid_image_url", "Fetching addresses is switched off"),
    "bg-urls-off": (400, "invalid_bg_image_url", "Fetching addresses is switched off"),
}


def word_refusal(refusal: Refusal) -> Refusal:
    """Convert a refusal with bgx's code to remove.bg's status, code and title."""
    known = _WORDED.get(refusal.code)
    if known is None:
        code = refusal.code.replace("-", "_")
        status = 400 if refusal.status in (408, 413, 415, 422) else refusal.status
        return Refusal(
            status,
            code,
            refusal.title,
            detail=refusal.detail,
            retry_after=refusal.retry_after,
        )
    status, code, title = known
    return Refusal(status, code, title, detail=refusal.title, retry_after=refusal.retry_after)


def answer_headers(facts: Mapping[str, Any], kind: str | None) -> dict[str, str]:
    """The headers that describe a result.

    facts: of the cache entry. kind: of the :class:`bgx.serve.requests.CutoutRequest`.
    """
    full = limit_size(facts["full_width"], facts["full_height"])
    headers = {
        "X-Width": str(facts["width"]),
        "X-Height": str(facts["height"]),
        "X-Max-Width": str(full[0]),
        "X-Max-Height": str(full[1]),
        "X-Credits-Charged": "0",
    }
    if kind:
        headers["X-Type"] = kind
    for name, value in foreground(facts).items():
        headers[f"X-Foreground-{name.removeprefix('foreground_').title()}"] = str(value)
    return headers


def limit_size(width: int, height: int) -> tuple[int, int]:
    """The size that ``size=full`` gives in the formats without a limit of their own."""
    return place((width, height), None, CanvasSettings(resize=Area(FULL_MEGAPIXELS * 10**6))).size


def foreground(facts: Mapping[str, Any]) -> dict[str, int]:
    """The subject's bounding box in pixels of the full size, even if the result is smaller; all 0
    without a subject."""
    # One scale for each axis, because sides are rounded down, which is much of a short one.
    scales = facts["full_width"] / facts["width"], facts["full_height"] / facts["height"]
    box = facts["bbox"] or (0, 0, 0, 0)
    left, top, right, bottom = (
        round(scale * side) for scale, side in zip(2 * scales, box, strict=True)
    )
    return {
        "foreground_top": top,
        "foreground_left": left,
        "foreground_width": right - left,
        "foreground_height": bottom - top,
    }


def answer_json(data: bytes, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a client that accepts JSON."""
    return {"data": {"result_b64": base64.b64encode(data).decode(), **foreground(facts)}}


def error_json(refusal: Refusal) -> dict[str, Any]:
    """The body of an answer with an error."""
    error = {"title": refusal.title, "code": refusal.code}
    if refusal.detail:
        error["detail"] = refusal.detail
    return {"errors": [error]}


def rate_headers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    """The headers of the rate limit; arguments as of :meth:`bgx.serve.service.Service.rate`."""
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(max(0, remaining)),
        "X-RateLimit-Reset": str(int(time.time() + reset)),
    }


ACCOUNT = {
    "data": {
        "attributes": {
            "credits": {"total": 0, "subscription": 0, "payg": 0, "enterprise": 0},
            "api": {"free_calls": 0, "sizes": "all"},
        }
    }
}
"""The answer about an account: there are no credits, because nothing is charged."""
