"""Reads the pictures of remove.bg's requests: the photo and the background."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from typing import TYPE_CHECKING

from bgx.errors import UsageError
from bgx.parsers import parse_backdrop
from bgx.serve.removebg.fields import refuse, show
from bgx.serve.requests import Link, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOURCES = ("image_file", "image_file_b64", "image_url")
_BACKGROUNDS = ("bg_color", "bg_image_url", "bg_image_file")


def read_source(texts: Mapping[str, str], files: Mapping[str, bytes]) -> bytes | Link:
    """The photo, of which exactly one source must be given. Raises Refusal."""
    given = [name for name in _SOURCES if name in texts or name in files]
    if not given:
        raise refuse(
            "missing_source",
            "No image given",
            "Please provide the source image in the image_url, image_file or image_file_b64 "
            "parameter.",
        )
    if len(given) > 1:
        raise refuse("multiple_sources", "Multiple image sources given", ", ".join(given))
    [name] = given
    _check_form(name, files)
    if name == "image_file":
        return files[name]
    if name == "image_file_b64":
        return decode_base64(texts[name].replace(" ", "+"))
    return Link(texts[name], _refuse_source)


def _check_form(name: str, files: Mapping[str, bytes]) -> None:
    """Raises Refusal for a text in a file's place, and a file in a text's."""
    is_file = name in ("image_file", "bg_image_file")
    if (name in files) != is_file:
        form = "a file of multipart/form-data" if is_file else "a text, not a file"
        raise refuse("invalid_file_type", f"{name} must be {form}")


def _refuse_source(reason: str, bad: bool) -> Refusal:
    if bad:
        return refuse("invalid_image_url", "Invalid image_url given", reason)
    return refuse("failed_image_download", "Failed to download the image", reason)


def _refuse_background(reason: str, bad: bool) -> Refusal:
    if bad:
        return refuse("invalid_bg_image_url", "Invalid bg_image_url given", reason)
    return refuse("failed_bg_download", "Failed to download the background image", reason)


def decode_base64(text: str) -> bytes:
    """Decode base64, with or without a data URL's prefix, padding or line breaks.

    Raises Refusal.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    text = text.translate({ord(character): None for character in "\r\n\t"}).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise refuse(
            "failed_to_read_image", "Failed to read the image", "image_file_b64 is no base64"
        ) from None


def read_background(
    texts: Mapping[str, str], files: Mapping[str, bytes]
) -> tuple[str | None, bytes | Link | None]:
    """A colour as #rrggbb or #rrggbbaa, or an image; of both at most one is not None.

    Raises Refusal.
    """
    given = [name for name in _BACKGROUNDS if name in texts or name in files]
    if len(given) > 1:
        raise refuse("multiple_bg_sources", "Multiple background sources given", ", ".join(given))
    for name in given:
        _check_form(name, files)
    match given:
        case ["bg_color"]:
            return parse_colour(texts["bg_color"]), None
        case ["bg_image_url"]:
            return None, Link(texts["bg_image_url"], _refuse_background, "bg-urls-off")
        case ["bg_image_file"]:
            return None, files["bg_image_file"]
    return None, None


def parse_colour(text: str) -> str:
    """Convert a colour's name, or 3, 4, 6 or 8 hex digits with or without #, to #rrggbb or
    #rrggbbaa. Raises Refusal.
    """
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
    raise refuse(
        "invalid_bg_color",
        "Invalid bg_color given",
        f"{show(text)}: use a hex color (81d4fa, fff, 81d4fa77) or a color's name (green)",
    )
