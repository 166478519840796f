"""remove.bg's API, version 1.0: its form of request, of answer and of error.

Pure functions: no connection, no picture is touched here. Fields, limits and codes follow its
published description; docs/removebg.md says where bgx differs.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

from bgx.errors import UsageError
from bgx.parsers import parse_backdrop
from bgx.serve.asks import Ask, Link, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgx.serve.asks import Form, Package

_SIZES: dict[str, float] = {
    "preview": 0.25,
    "small": 0.25,
    "regular": 0.25,
    "medium": 1.5,
    "hd": 4,
    "full": 25,
    "4k": 25,
    "auto": 25,
    "50mp": 50,
}
"""Megapixels of the result."""

_PNG_LIMIT = 10
"""Megapixels of a PNG, where the size asked for is ``full`` or ``auto``."""

_SOURCES = ("image_file", "image_file_b64", "image_url")
_BACKGROUNDS = ("bg_color", "bg_image_url", "bg_image_file")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_NOTHING = frozenset({"", "undefined", "null"})
"""Words that wrappers send for fields that were left out."""

_TYPES = frozenset({"person", "product", "car", "animal", "graphic", "transportation"})
_LENGTH = re.compile(r"(\d{1,6}(?:\.\d+)?)(px|%)?")
_SHADOWS = {"none": None, "auto": "soft", "drop": "soft"}
_UNSUPPORTED_SHADOWS = frozenset({"car", "3d"})
_MOST_MARGIN = {"%": 50, "px": 500}


def parse_request(form: Form) -> Ask:
    """Raises Refusal with status 400 and one of remove.bg's codes."""
    texts = {
        # A trailing space in base64 is a + of a client that does not escape it in a form.
        name: text if name == "image_file_b64" else text.strip()
        for name, text in form.texts.items()
        if len(text) > 100 or text.strip().lower() not in _NOTHING
    }
    files = {name: data for name, data in form.files.items() if data or name == "image_file"}
    source = _read_source(texts, files)
    kind = texts.get("type", "auto").lower()
    color, background = _read_background(texts, files)
    shadow = _read_shadow(texts, kind)
    file_format = _read_word(texts, "format", ("auto", "png", "jpg", "jpeg", "webp", "zip"))
    package: Package = "zip" if file_format == "zip" else "picture"
    # A zip has the alpha as a file of its own in any case.
    alone = _read_word(texts, "channels", ("rgba", "alpha")) == "alpha"
    mask_only = alone and package == "picture"
    opaque = not mask_only and (background is not None or _is_opaque(color))
    options = _choose_format(file_format, opaque=opaque)
    options["resize"] = _read_size(texts, png=options["format"] == "png" and package == "picture")
    if mask_only:
        options["mask_only"] = True
    else:
        if color:
            options["background"] = color
        if shadow:
            options["shadow"] = shadow
    if not _read_switch(texts, "semitransparency", default=True):
        options["matte"] = "solid"
    options |= _read_framing(texts)
    region = _read_region(texts)
    if region:
        options["region"] = region
    return Ask(
        source,
        options,
        background=None if mask_only else background,
        package=package,
        kind=_read_kind(texts),
    )


def _refuse(code: str, title: str, detail: str | None = None) -> Refusal:
    return Refusal(400, code, title, detail=detail)


def _read_source(texts: Mapping[str, str], files: Mapping[str, bytes]) -> bytes | Link:
    given = [name for name in _SOURCES if name in texts or name in files]
    if not given:
        raise _refuse(
            "missing_source",
            "No image given",
            "Please provide the source image in the image_url, image_file or image_file_b64 "
            "parameter.",
        )
    if len(given) > 1:
        raise _refuse("multiple_sources", "Multiple image sources given", ", ".join(given))
    [name] = given
    if name == "image_file":
        if name not in files:
            raise _refuse("invalid_file_type", "image_file must be a file of multipart/form-data")
        return files[name]
    if name == "image_file_b64":
        return decode_base64(texts.get(name, "").replace(" ", "+"))
    return Link(texts[name], _refuse_source)


def _refuse_source(reason: str, bad: bool) -> Refusal:
    if bad:
        return _refuse("invalid_image_url", "Invalid image_url given", reason)
    return _refuse("failed_image_download", "Failed to download the image", reason)


def _refuse_background(reason: str, bad: bool) -> Refusal:
    if bad:
        return _refuse("invalid_bg_image_url", "Invalid bg_image_url given", reason)
    return _refuse("failed_bg_download", "Failed to download the background image", reason)


def decode_base64(text: str) -> bytes:
    """A file in base64, with or without the head of a data URL, padding and line breaks."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    text = text.translate({ord(character): None for character in "\r\n\t"}).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _refuse(
            "failed_to_read_image", "Failed to read the image", "image_file_b64 is no base64"
        ) from None


def _read_background(
    texts: Mapping[str, str], files: Mapping[str, bytes]
) -> tuple[str | None, bytes | Link | None]:
    """A colour as #rrggbb or #rrggbbaa, or an image; of both at most one is not None."""
    given = [name for name in _BACKGROUNDS if name in texts or name in files]
    if len(given) > 1:
        raise _refuse("multiple_bg_sources", "Multiple background sources given", ", ".join(given))
    match given:
        case ["bg_color"]:
            return parse_colour(texts["bg_color"]), None
        case ["bg_image_url"]:
            return None, Link(texts["bg_image_url"], _refuse_background)
        case ["bg_image_file"] if "bg_image_file" in files:
            return None, files["bg_image_file"]
        case ["bg_image_file"]:
            raise _refuse(
                "invalid_file_type", "bg_image_file must be a file of multipart/form-data"
            )
    return None, None


def parse_colour(text: str) -> str:
    """A name, or 3, 4, 6 or 8 hex digits with or without #, as #rrggbb or #rrggbbaa."""
    digits = text.removeprefix("#").lower()
    if re.fullmatch(r"[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8}", digits):
        return "#" + ("".join(2 * digit for digit in digits) if len(digits) < 6 else digits)
    if re.fullmatch(r"[a-z]+", digits) and not text.startswith("#"):
        if digits == "transparent":
            return "#00000000"
        with contextlib.suppress(UsageError):
            match parse_backdrop(digits):
                case (red, green, blue):
                    return f"#{red:02x}{green:02x}{blue:02x}"
    raise _refuse(
        "invalid_bg_color",
        "Invalid bg_color given",
        f"{_show(text)}: use a hex color (81d4fa, fff, 81d4fa77) or a color's name (green)",
    )


def _is_opaque(color: str | None) -> bool:
    return color is not None and (len(color) == 7 or color.endswith("ff"))


def _choose_format(asked: str, *, opaque: bool) -> dict[str, Any]:
    if asked == "webp":
        return {"format": "webp", "quality": 90}
    if asked == "auto":
        asked = "jpg" if opaque else "png"
    # What goes into a zip is encoded again: nothing may be lost before.
    return {"format": {"jpeg": "jpg", "zip": "png"}.get(asked, asked)}


def _read_size(texts: Mapping[str, str], *, png: bool) -> str:
    asked = texts.get("size", "preview").lower()
    if asked not in _SIZES:
        raise _refuse(
            "invalid_size",
            "Invalid size given",
            f"{_show(asked)}: use one of preview, small, regular, medium, hd, full, 4k, 50MP, auto",
        )
    most = _SIZES[asked]
    if png and most == _SIZES["full"]:
        most = _PNG_LIMIT
    return f"{most:g}MP"


def _read_shadow(texts: Mapping[str, str], kind: str) -> str | None:
    asked = texts.get(f"shadow_type[{kind}]", texts.get("shadow_type", "")).lower()
    if not asked:
        asked = "auto" if _read_switch(texts, "add_shadow", default=False) else "none"
    if asked in _UNSUPPORTED_SHADOWS:
        raise _refuse(
            "unsupported_shadow_type",
            f"shadow_type {asked} is not supported",
            "This server casts no car and no 3D shadows; use drop or none.",
        )
    if asked not in _SHADOWS:
        raise _refuse(
            "invalid_shadow_type",
            "Invalid shadow_type given",
            f"{_show(asked)}: use none, auto or drop",
        )
    opacity = texts.get("shadow_opacity", "auto").lower().removesuffix("%")
    if opacity != "auto" and not (
        re.fullmatch(r"\d{1,3}(\.\d+)?", opacity) and float(opacity) <= 100
    ):
        raise _refuse(
            "invalid_shadow_opacity", "Invalid shadow_opacity given", "Use 0 to 100, or auto."
        )
    shadow = _SHADOWS[asked]
    return f"{shadow}:{opacity}%" if shadow and opacity != "auto" else shadow


def _read_framing(texts: Mapping[str, str]) -> dict[str, Any]:
    """crop, crop_margin, scale and position as bgx's framing options."""
    crop = _read_switch(texts, "crop", default=False)
    margin = _read_margin(texts)
    scale, position = _read_scale(texts), _read_position(texts)
    if crop:
        return {"crop": True, "margin": margin} if margin else {"crop": True}
    if scale is None and position is None:
        return {}
    options: dict[str, Any] = {"canvas": "original", "align": position or "center"}
    if scale is not None:
        # The subject may be enlarged to its share; the photo's own size stays the limit.
        options |= {"fill": f"{scale:g}%", "upscale": True}
    return options


def _read_margin(texts: Mapping[str, str]) -> str | None:
    """One, two (vertical, horizontal) or four lengths (top, right, bottom, left)."""
    text = texts.get("crop_margin", "0")
    lengths = [_LENGTH.fullmatch(part) for part in text.split()]
    if len(lengths) not in (1, 2, 4) or not all(
        length and float(length[1]) <= _MOST_MARGIN[length[2] or "px"] for length in lengths
    ):
        raise _refuse(
            "invalid_crop_margin",
            "Invalid crop_margin given",
            f"{_show(text)}: use one, two or four values of at most 50% or 500px",
        )
    margins = [f"{length[1]}{length[2] or 'px'}" for length in lengths if length]
    return " ".join(margins) if any(length and float(length[1]) for length in lengths) else None


def _read_scale(texts: Mapping[str, str]) -> float | None:
    text = texts.get("scale", "original").lower()
    if text == "original":
        return None
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", text)
    if match is None or not 10 <= float(match[1]) <= 100:
        raise _refuse(
            "invalid_scale", "Invalid scale given", f"{_show(text)}: use original or 10% to 100%"
        )
    return float(match[1])


def _read_position(texts: Mapping[str, str]) -> str | None:
    """None is as it is, or in the middle where the subject is scaled."""
    if "position" not in texts:
        return None
    text = texts["position"].lower()
    if text == "original":
        return "original" if "scale" in texts else None
    if text == "center":
        return text
    shares = [re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", part) for part in text.split()]
    if len(shares) not in (1, 2) or not all(share and float(share[1]) <= 100 for share in shares):
        raise _refuse(
            "invalid_position",
            "Invalid position given",
            f"{_show(text)}: use original, center, or one or two values of 0% to 100%",
        )
    given = [f"{float(share[1]):g}%" for share in shares if share]
    return " ".join(given if len(given) == 2 else 2 * given)


def _read_region(texts: Mapping[str, str]) -> str | None:
    """Left, top, right and bottom, as bgx's option takes them."""
    text = texts.get("roi")
    if text is None:
        return None
    sides = [_LENGTH.fullmatch(part) for part in text.split()]
    if len(sides) != 4 or not all(sides):
        raise _refuse(
            "invalid_roi", "Invalid roi given", f'{_show(text)}: use "x1 y1 x2 y2" in px or %'
        )
    region = [(float(side[1]), side[2] or "px") for side in sides if side]
    if any(unit == "%" and value > 100 for value, unit in region):
        raise _refuse("roi_exceeds_bounds", "The roi exceeds the image's bounds", text)
    for (low, low_unit), (high, high_unit) in ((region[0], region[2]), (region[1], region[3])):
        if low_unit == high_unit and low >= high:
            raise _refuse("roi_region_empty", "The roi is empty", text)
    return ",".join(f"{value:g}{unit}" for value, unit in region)


def _read_kind(texts: Mapping[str, str]) -> str | None:
    """The X-Type header: bgx does not tell kinds apart, so the client's hint comes back."""
    if texts.get("type_level", "").lower() == "none":
        return None
    kind = texts.get("type", "").lower()
    return kind if kind in _TYPES else "other"


def _read_word(texts: Mapping[str, str], field: str, words: tuple[str, ...]) -> str:
    """One of some words; the first is the default."""
    text = texts.get(field, words[0]).lower()
    if text not in words:
        raise _refuse(
            f"invalid_{field}",
            f"Invalid {field} given",
            f"{_show(text)}: use one of {', '.join(words)}",
        )
    return text


def _read_switch(texts: Mapping[str, str], field: str, *, default: bool) -> bool:
    text = texts.get(field)
    if text is None:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise _refuse(
            f"invalid_{field}", f"Invalid {field} given", f"{_show(text)}: use true or false"
        )
    return text.lower() in _TRUE


def _show(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def picture_refusal(code: str, message: str) -> Refusal:
    """The refusal for a picture that bgx could not cut out. code: of bgx's error."""
    match code:
        case "too-large":
            return _refuse("resolution_too_high", "Image resolution too high", message)
        case "no-subject":
            return _refuse(
                "unknown_foreground",
                "Could not identify foreground in image",
                message,
            )
        case "region":
            return _refuse("roi_exceeds_bounds", "The roi exceeds the image's bounds", message)
        case "region-empty":
            return _refuse("roi_region_empty", "The roi is empty", message)
        case "unreadable":
            return _refuse("failed_to_read_image", "Failed to read the image", message)
    return Refusal(500, "processing_failed", "The image could not be processed", detail=message)


_WORDED = {
    "too-many-bytes": (400, "file_too_large", "File too large"),
    "unauthorized": (403, "auth_failed", "API Key invalid"),
    "queue-full": (429, "rate_limit_exceeded", "Rate limit exceeded"),
    "urls-off": (400, "invalid_image_url", "Fetching addresses is switched off"),
}


def word_refusal(refusal: Refusal) -> Refusal:
    """A refusal of the server's own with remove.bg's status, code and title."""
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
    """The headers that describe a result. facts: of :mod:`bgx.serve.work`. kind: of the ask."""
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
    scale = min(1.0, (_SIZES["full"] * 1_000_000 / (width * height)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


def foreground(facts: Mapping[str, Any]) -> dict[str, int]:
    """Where the subject is, in pixels of the photo even where the result is smaller; all 0 where
    there is none."""
    scale = facts["full_width"] / facts["width"]
    left, top, right, bottom = (round(scale * side) for side in facts["bbox"] or (0, 0, 0, 0))
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
    """The body of every answer that is not 200."""
    error = {"title": refusal.title, "code": refusal.code}
    if refusal.detail:
        error["detail"] = refusal.detail
    return {"errors": [error]}


def rate_headers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    """limit: requests that may wait. remaining: how many more may. reset: seconds until all may."""
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
"""What an account holds: nothing is charged here."""
