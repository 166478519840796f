"""Translates remove.bg's requests into bgx's options.

Fields, limits and codes follow the API's published description; docs/coming-from-removebg.md says
where bgx differs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bgx.serve.removebg.fields import drop_empty, read_switch, read_word, refuse, show
from bgx.serve.removebg.framing import read_framing, read_region
from bgx.serve.removebg.sources import read_background, read_source
from bgx.serve.requests import CutoutRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgx.serve.requests import Form, Package

FULL_MEGAPIXELS = 25
"""Megapixels of the largest result, except with ``size=50MP``."""

FIELDS = {
    "region": "roi",
    "resize": "size",
    "margin": "crop_margin",
    "canvas": "scale",
    "fill": "scale",
    "align": "position",
    "shadow": "shadow_type",
    "mask_only": "channels",
    "matte": "semitransparency",
    "background": "background",
    "format": "format",
}
"""The fields by the names of bgx's options."""

_SIZES: dict[str, float] = {
    "preview": 0.25,
    "small": 0.25,
    "regular": 0.25,
    "medium": 1.5,
    "hd": 4,
    "full": FULL_MEGAPIXELS,
    "4k": FULL_MEGAPIXELS,
    "auto": FULL_MEGAPIXELS,
    "50mp": 50,
}
"""Largest size of the result, megapixels."""

_PNG_LIMIT = 10
"""Largest size of a PNG with ``size`` full, 4k or auto, megapixels."""

_TYPES = frozenset({"person", "product", "car", "animal", "graphic", "transportation"})
_SHADOWS = {"none": None, "auto": "soft", "drop": "soft"}
_UNSUPPORTED_SHADOWS = frozenset({"car", "3d"})


def parse_request(form: Form) -> CutoutRequest:
    """Parse a request. Raises Refusal with status 400 and one of remove.bg's codes."""
    texts = drop_empty(form.texts)
    files = {name: data for name, data in form.files.items() if data or name == "image_file"}
    source = read_source(texts, files)
    colour, background = read_background(texts, files)
    shadow = _read_shadow(texts)
    channels = read_word(texts, "channels", ("rgba", "alpha"))
    file_format = read_word(texts, "format", ("auto", "png", "jpg", "jpeg", "webp", "zip"))
    package: Package = "zip" if file_format == "zip" else "picture"
    # A zip always contains the alpha as a file of its own.
    mask_only = channels == "alpha" and package == "picture"
    if mask_only:
        colour = background = shadow = None
    opaque = background is not None or _is_opaque(colour)
    look = {"mask_only": mask_only, "background": colour, "shadow": shadow}
    options = {name: value for name, value in look.items() if value}
    options |= _choose_format(file_format, opaque=opaque)
    options["resize"] = _read_size(texts, png=options["format"] == "png" and package == "picture")
    if not read_switch(texts, "semitransparency", default=True):
        options["matte"] = "solid"
    options |= read_framing(texts)
    region = read_region(texts)
    if region:
        options["region"] = region
    return CutoutRequest(
        source,
        options,
        background=background,
        package=package,
        kind=_read_kind(texts),
    )


def _is_opaque(colour: str | None) -> bool:
    return colour is not None and (len(colour) == 7 or colour.endswith("ff"))


def _choose_format(asked: str, *, opaque: bool) -> dict[str, Any]:
    if asked == "webp":
        return {"format": "webp", "quality": 90}
    if asked == "auto":
        asked = "jpg" if opaque else "png"
    # The pictures in a zip are encoded later: no loss before that.
    return {"format": {"jpeg": "jpg", "zip": "png"}.get(asked, asked)}


def _read_size(texts: Mapping[str, str], *, png: bool) -> str:
    asked = texts.get("size", "preview").lower()
    if asked not in _SIZES:
        raise refuse(
            "invalid_size",
            "Invalid size given",
            f"{show(asked)}: use one of preview, small, regular, medium, hd, full, 4k, 50MP, auto",
        )
    most = _SIZES[asked]
    if png and most == FULL_MEGAPIXELS:
        most = _PNG_LIMIT
    return f"{most:g}MP"


def _read_shadow(texts: Mapping[str, str]) -> str | None:
    kind = texts.get("type", "auto").lower()
    asked = texts.get(f"shadow_type[{kind}]", texts.get("shadow_type", "")).lower()
    if not asked:
        asked = "auto" if read_switch(texts, "add_shadow", default=False) else "none"
    if asked in _UNSUPPORTED_SHADOWS:
        raise refuse(
            "unsupported_shadow_type",
            f"shadow_type {asked} is not supported",
            "This server casts no car and no 3D shadows; use drop or none.",
        )
    if asked not in _SHADOWS:
        raise refuse(
            "invalid_shadow_type",
            "Invalid shadow_type given",
            f"{show(asked)}: use none, auto or drop",
        )
    opacity = texts.get("shadow_opacity", "auto").lower().removesuffix("%")
    if opacity != "auto" and not (
        re.fullmatch(r"\d{1,3}(\.\d+)?", opacity) and float(opacity) <= 100
    ):
        raise refuse(
            "invalid_shadow_opacity", "Invalid shadow_opacity given", "Use 0 to 100, or auto."
        )
    shadow = _SHADOWS[asked]
    return f"{shadow}:{opacity}%" if shadow and opacity != "auto" else shadow


def _read_kind(texts: Mapping[str, str]) -> str | None:
    """The value of X-Type: bgx detects no types, so it repeats the client's."""
    if texts.get("type_level", "").lower() == "none":
        return None
    kind = texts.get("type", "").lower()
    return kind if kind in _TYPES else "other"
