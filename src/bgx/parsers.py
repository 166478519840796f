"""The texts in which people write an option's value, read into values of :mod:`bgx.settings`.

Each parser takes one option's text, or the value that Python may give in its place, and raises
UsageError naming the option and the form to use. Values are within the option's bounds.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from bgx.errors import UsageError
from bgx.settings import Backdrop, Length, Shadow, expand_path

if TYPE_CHECKING:
    from bgx.settings import Background, Colour, ShadowKind

_MAX_SIDE = 30_000
"""Of a finished picture whose size is asked for, pixels."""

_MOST_MARGIN = {"px": 10_000, "%": 100}
_STRENGTHS: dict[ShadowKind, float] = {"soft": 0.35, "contact": 0.5}


class Canvas(NamedTuple):
    """A size in pixels, or an aspect (width to height); the other one is None."""

    size: tuple[int, int] | None
    aspect: tuple[int, int] | None


def parse_background(text: str | Colour | Path) -> Background:
    """``blur``, ``blur:RADIUS``, ``original-greyed``, a colour, or the path of an image file."""
    if isinstance(text, Path):
        return text
    if not isinstance(text, str):
        return _check_colour(text)
    kind, _, radius = text.partition(":")
    if kind == "blur":
        return Backdrop("blur", _parse_radius(radius) if radius else None)
    if text == "original-greyed":
        return Backdrop("grey")
    try:
        return parse_colour(text)
    except UsageError:
        path = expand_path(text)
        if os.path.isfile(path):  # noqa: PTH113 - Path's own raises where the name is too long
            return path
        raise UsageError(
            f"--background {text}: use a colour (white, #ffffff), an image file, "
            "blur[:RADIUS] or original-greyed"
        ) from None


def _parse_radius(text: str) -> float:
    try:
        radius = float(text)
    except ValueError:
        raise UsageError(f"--background blur:{text}: {text} is no number") from None
    if not 0.5 <= radius <= 1000:
        raise UsageError(f"--background blur:{radius:g}: use 0.5 to 1000 pixels")
    return radius


def parse_colour(text: str) -> Colour:
    """A CSS name, ``#rgb``, ``#rrggbb`` or ``rgb(r, g, b)``."""
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(text.strip())
    except ValueError:
        colour = (0, 0, 0, 0)
    if len(colour) == 4:  # unknown, or with an alpha of its own
        raise UsageError(f"--background {text}: use a name (white) or a hex colour (#ffffff)")
    return colour


def _check_colour(values: Any) -> Colour:
    try:
        red, green, blue = (int(value) for value in values)
    except (TypeError, ValueError):
        raise UsageError(f"--background {values!r}: use three numbers, 0 to 255") from None
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise UsageError(f"--background {values!r}: use three numbers, 0 to 255")
    return red, green, blue


def parse_margin(text: str | int) -> Length:
    """``3%`` or ``40px``; a bare number is pixels."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%|px)?", str(text).strip())
    if match is None:
        raise UsageError(f"--margin {text}: use percent of the subject (3%) or pixels (40px)")
    margin = Length(float(match[1]), "%" if match[2] == "%" else "px")
    most = _MOST_MARGIN[margin.unit]
    if margin.value > most:
        raise UsageError(f"--margin {margin}: use 0{margin.unit} to {most}{margin.unit}")
    return margin


def parse_canvas(text: str) -> Canvas:
    """``2000x2000`` (a size), ``square`` or ``4:5`` (an aspect)."""
    if text == "square":
        return Canvas(None, (1, 1))
    match = re.fullmatch(r"(\d{1,9})\s*([x:])\s*(\d{1,9})", str(text).strip())
    if match is None:
        raise UsageError(f"--canvas {text}: use a size (2000x2000), square, or an aspect (4:5)")
    pair = int(match[1]), int(match[3])
    if match[2] == "x":
        return Canvas(_check_sides(pair, "--canvas"), None)
    if not all(1 <= part <= 1000 for part in pair):
        raise UsageError(f"--canvas {pair[0]}:{pair[1]}: use 1 to 1000 each")
    return Canvas(None, pair)


def parse_fill(text: str) -> float:
    """``85%`` as 0.85."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", str(text).strip())
    if match is None:
        raise UsageError(f"--fill {text}: use percent of the canvas (85%)")
    fill = float(match[1]) / 100
    if not 0.01 <= fill <= 1:
        raise UsageError(f"--fill {fill:.0%}: use 1% to 100%")
    return fill


def parse_resize(text: str | int) -> tuple[int, int]:
    """``1200x800``, or ``1200`` for the longer side."""
    match = re.fullmatch(r"(\d{1,9})(?:\s*x\s*(\d{1,9}))?", str(text).strip())
    if match is None:
        raise UsageError(f"--resize {text}: use WIDTHxHEIGHT or the longer side, in pixels")
    return _check_sides((int(match[1]), int(match[2] or match[1])), "--resize")


def _check_sides(size: tuple[int, int], flag: str) -> tuple[int, int]:
    if not all(1 <= side <= _MAX_SIDE for side in size):
        raise UsageError(f"{flag} {size[0]}x{size[1]}: use sides of 1 to {_MAX_SIDE:,} pixels")
    return size


def parse_shadow(text: str) -> Shadow | None:
    """``none``, ``soft`` or ``contact``, with a strength of its own as in ``soft:40%``."""
    if text == "none":
        return None
    match = re.fullmatch(r"(soft|contact)(?::(\d+(?:\.\d+)?)%)?", str(text).strip())
    if match is None:
        raise UsageError(f"--shadow {text}: use none, soft or contact, with a strength (soft:40%)")
    kind = cast("ShadowKind", match[1])
    strength = float(match[2]) / 100 if match[2] else _STRENGTHS[kind]
    if strength > 1:
        raise UsageError(f"--shadow {kind}:{strength:.0%}: use 0% to 100%")
    return Shadow(kind, strength)


def parse_bytes(text: str | int) -> int:
    """``10MB``, ``500kB`` (thousands) or a number of bytes."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*(k|m)?b?", str(text).strip().lower())
    if match is None:
        raise UsageError(f"--max-bytes {text}: use a number with kB or MB (10MB), or of bytes")
    limit = int(float(match[1]) * {None: 1, "k": 1_000, "m": 1_000_000}[match[2]])
    if limit < 1:
        raise UsageError(f"--max-bytes {text}: use 1 or more")
    return limit
