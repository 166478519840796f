"""Reads remove.bg's crop, crop_margin, scale, position and roi as bgx's options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bgx.serve.removebg.fields import read_switch, refuse, show
from bgx.settings import Length

if TYPE_CHECKING:
    from collections.abc import Mapping

_LENGTH = re.compile(r"(\d{1,6}(?:\.\d+)?)(px|%)?")
_MOST_MARGIN = {"%": 50, "px": 500}


def read_framing(texts: Mapping[str, str]) -> dict[str, Any]:
    """crop, crop_margin, scale and position as bgx's framing options. Raises Refusal."""
    crop = read_switch(texts, "crop", default=False)
    margin = _read_margin(texts)
    scale, position = _read_scale(texts), _read_position(texts)
    if crop:
        return {"crop": True, "margin": margin} if margin else {"crop": True}
    if scale is None and position is None:
        return {}
    options: dict[str, Any] = {"canvas": "original", "align": position or "center"}
    if scale is not None:
        # A small subject is enlarged to this share; the canvas keeps the photo's size.
        options |= {"fill": f"{scale:g}%", "upscale": True}
    return options


def _read_margin(texts: Mapping[str, str]) -> str | None:
    """One, two (vertical, horizontal) or four lengths (top, right, bottom, left)."""
    text = texts.get("crop_margin", "0")
    lengths = [_LENGTH.fullmatch(part) for part in text.split()]
    if len(lengths) not in (1, 2, 4) or not all(
        length and float(length[1]) <= _MOST_MARGIN[length[2] or "px"] for length in lengths
    ):
        raise refuse(
            "invalid_crop_margin",
            "Invalid crop_margin given",
            f"{show(text)}: use one, two or four values of at most 50% or 500px",
        )
    margins = [f"{length[1]}{length[2] or 'px'}" for length in lengths if length]
    return " ".join(margins) if any(length and float(length[1]) for length in lengths) else None


def _read_scale(texts: Mapping[str, str]) -> float | None:
    text = texts.get("scale", "original").lower()
    if text == "original":
        return None
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", text)
    if match is None or not 10 <= float(match[1]) <= 100:
        raise refuse(
            "invalid_scale", "Invalid scale given", f"{show(text)}: use original or 10% to 100%"
        )
    return float(match[1])


def _read_position(texts: Mapping[str, str]) -> str | None:
    """bgx's ``align``; None if the field is missing, or leaves an unscaled subject in its place."""
    if "position" not in texts:
        return None
    text = texts["position"].lower()
    if text == "original":
        return "original" if "scale" in texts else None
    if text == "center":
        return text
    shares = [re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", part) for part in text.split()]
    if len(shares) not in (1, 2) or not all(share and float(share[1]) <= 100 for share in shares):
        raise refuse(
            "invalid_position",
            "Invalid position given",
            f"{show(text)}: use original, center, or one or two values of 0% to 100%",
        )
    given = [f"{share[1]}%" for share in shares if share]
    return " ".join(given if len(given) == 2 else 2 * given)


def read_region(texts: Mapping[str, str]) -> str | None:
    """Left, top, right and bottom, as bgx's option takes them. Raises Refusal."""
    text = texts.get("roi")
    if text is None:
        return None
    sides = [_LENGTH.fullmatch(part) for part in text.split()]
    if len(sides) != 4 or not all(sides):
        raise refuse(
            "invalid_roi", "Invalid roi given", f'{show(text)}: use "x1 y1 x2 y2" in px or %'
        )
    region = [Length(float(side[1]), "%" if side[2] == "%" else "px") for side in sides if side]
    if any(side.unit == "%" and side.value > 100 for side in region):
        raise refuse("roi_exceeds_bounds", "The roi exceeds the image's bounds", text)
    for low, high in ((region[0], region[2]), (region[1], region[3])):
        if low.unit == high.unit and low.value >= high.value:
            raise refuse("roi_region_empty", "The roi is empty", text)
    return ",".join(map(str, region))
