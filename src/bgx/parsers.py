"""Parses the texts of options into values of :mod:`bgx.settings`.

Each parser takes the text of one option, or the value that Python callers may give instead. It
raises UsageError, which names the option and the form to use, also for values out of bounds.
"""

from __future__ import annotations

import math
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from bgx.errors import UsageError
from bgx.settings import Area, Backdrop, Length, Margins, Region, Shadow, Tint, expand_path

if TYPE_CHECKING:
    from bgx.settings import Align, Background, Colour, ShadowKind

_MAX_SIDE = 30_000
"""Longest side of a finished picture that can be requested, pixels."""

_MOST_MARGIN = {"px": 10_000, "%": 100}
_MOST_EDGE = 100.0
"""Of a matte's edge that is moved or blurred, pixels."""

_STRENGTHS: dict[ShadowKind, float] = {"soft": 0.35, "contact": 0.5}


class Canvas(NamedTuple):
    """A size in pixels, an aspect ratio (width, height), or the photo's own size (original)."""

    size: tuple[int, int] | None = None
    aspect: tuple[int, int] | None = None
    original: bool = False


def parse_background(text: str | Colour | Path | bytes) -> Background:
    """What :func:`parse_backdrop` takes, or an image file.

    From Python, also three numbers for a colour, a Path, or an image file's content.
    """
    if isinstance(text, Path | bytes):
        return text
    if not isinstance(text, str):
        return _check_colour(text)
    try:
        return parse_backdrop(text)
    except UsageError:
        if text.startswith("blur:"):
            raise
        path = expand_path(text)
        if _is_file_or_pipe(path):
            return path
        if path.suffix[1:].isalnum():
            raise UsageError(f"--background {text}: no such file") from None
        raise UsageError(
            f"--background {text}: use a colour (white, #ffffff), an image file, "
            "blur[:RADIUS] or original-greyed"
        ) from None


def _is_file_or_pipe(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # also a name that is too long, or none
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def parse_backdrop(text: str) -> Colour | Tint | Backdrop:
    """``blur``, ``blur:RADIUS``, ``original-greyed`` or a colour; never a file."""
    kind, _, radius = text.partition(":")
    if kind == "blur":
        return Backdrop("blur", _parse_radius(radius) if radius else None)
    if text == "original-greyed":
        return Backdrop("grey")
    return parse_colour(text)


def _parse_radius(text: str) -> float:
    try:
        radius = float(text)
    except ValueError:
        raise UsageError(f"--background blur:{text}: {text} is not a number") from None
    if not 0.5 <= radius <= 1000:
        raise UsageError(f"--background blur:{radius:g}: use 0.5 to 1000 pixels")
    return radius


def parse_colour(text: str) -> Colour | Tint:
    """A CSS name, ``#rgb``, ``#rrggbb``, ``rgb(r, g, b)``, or, if translucent, ``#rrggbbaa``."""
    from PIL import ImageColor

    try:
        red, green, blue, *alpha = ImageColor.getrgb(text.strip())
    except ValueError:
        raise UsageError(
            f"--background {text}: use a name (white) or a hex colour (#ffffff, #ffffff80)"
        ) from None
    colour = red, green, blue
    return Tint(colour, alpha[0]) if alpha and alpha[0] < 255 else colour


def _check_colour(values: Any) -> Colour:
    try:
        red, green, blue = (int(value) for value in values)
    except (TypeError, ValueError):
        raise UsageError(f"--background {values!r}: use three numbers, 0 to 255") from None
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise UsageError(f"--background {values!r}: use three numbers, 0 to 255")
    return red, green, blue


def parse_margin(text: str | int) -> Margins:
    """``3%`` or ``40px``; a number without a unit is in pixels.

    One value for all sides, two (vertical, horizontal) or four (top, right, bottom, left).
    """
    sides = [_parse_length(part) for part in _split_lengths(str(text))]
    if len(sides) not in (1, 2, 4) or None in sides:
        raise UsageError(
            f"--margin {text}: use percent of the subject (3%) or pixels (40px), one value, two "
            "(vertical, horizontal) or four (top, right, bottom, left)"
        )
    lengths = [side for side in sides if side]
    for length in lengths:
        most = _MOST_MARGIN[length.unit]
        if length.value > most:
            raise UsageError(f"--margin {length}: use 0{length.unit} to {most}{length.unit}")
    top, right, bottom, left = (lengths * 4)[:4]
    return Margins(top, right, bottom, left)


def parse_region(text: str | tuple[float, ...]) -> Region:
    """``LEFT,TOP,RIGHT,BOTTOM`` in pixels or percent of the photo: ``10%,0,90%,400px``.

    Python may give four numbers of pixels.
    """
    written = ",".join(map(str, text)) if isinstance(text, tuple | list) else str(text)
    sides = [_parse_length(part) for part in _split_lengths(written.replace(",", " "))]
    if len(sides) != 4 or None in sides:
        raise UsageError(
            f"--region {written}: use LEFT,TOP,RIGHT,BOTTOM in pixels or percent of the photo "
            "(10%,0,90%,400px)"
        )
    left, top, right, bottom = lengths = [side for side in sides if side]
    if any(side.unit == "%" and side.value > 100 for side in lengths):
        raise UsageError(f"--region {written}: use at most 100%")
    for low, high in ((left, right), (top, bottom)):
        if low.unit == high.unit and low.value >= high.value:
            raise UsageError(
                f"--region {written}: is empty; RIGHT must be more than LEFT, and BOTTOM more "
                "than TOP"
            )
    return Region(left, top, right, bottom)


def parse_threshold(text: str | float) -> float:
    """``0.5``, more than 0 and at most 1."""
    try:
        threshold = float(text)
    except (TypeError, ValueError):
        threshold = math.nan
    if not 0 < threshold <= 1:
        raise UsageError(f"--threshold {text}: use more than 0 and at most 1 (0.5)")
    return threshold


def parse_shift(text: str | float) -> float:
    """``-1px`` or ``+2.5px``; a bare number is pixels."""
    return _parse_pixels("--shift", text, least=-_MOST_EDGE, form="-1px or +2px")


def parse_soften(text: str | float) -> float:
    """``2px``; a bare number is pixels."""
    return _parse_pixels("--soften", text, least=0, form="2px")


def _parse_pixels(flag: str, text: str | float, *, least: float, form: str) -> float:
    match = re.fullmatch(r"([+-]?(?:\d{1,9}(?:\.\d+)?|\.\d+))\s*(?:px)?", str(text).strip())
    if match is None:
        raise UsageError(f"{flag} {text}: use pixels of the photo ({form})")
    pixels = float(match[1])
    if not least <= pixels <= _MOST_EDGE:
        raise UsageError(f"{flag} {text}: use {least:g}px to {_MOST_EDGE:g}px")
    return pixels


def _split_lengths(text: str) -> list[str]:
    """Split at spaces, except in front of a unit: ``3 %`` is one length."""
    return re.sub(r"\s+(?=%|px)", "", text).split()


def _parse_length(text: str) -> Length | None:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)(%|px)?", text)
    return Length(float(match[1]), "%" if match[2] == "%" else "px") if match else None


def parse_align(text: str | tuple[float, float]) -> Align:
    """``center``, ``bottom``, ``original``, or percent of the free space: ``20%``, ``20% 80%``."""
    match text:
        case "center" | "bottom" | "original":
            return text
    shares = [re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", part) for part in str(text).split()]
    if len(shares) not in (1, 2) or not all(share and float(share[1]) <= 100 for share in shares):
        raise UsageError(
            f"--align {text}: use center, bottom, original, or percent of the free space left of "
            "and above it (20% 80%)"
        )
    across, down = ([float(share[1]) / 100 for share in shares if share] * 2)[:2]
    return across, down


def parse_canvas(text: str) -> Canvas:
    """``2000x2000`` (a size), ``square`` or ``4:5`` (aspect ratios), ``original`` (the photo's)."""
    if text == "square":
        return Canvas(None, (1, 1))
    if text == "original":
        return Canvas(original=True)
    match = re.fullmatch(r"(\d{1,9})\s*([x:])\s*(\d{1,9})", str(text).strip())
    if match is None:
        raise UsageError(
            f"--canvas {text}: use a size (2000x2000), square, an aspect (4:5) or original"
        )
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
        raise UsageError(f"--fill {text}: use 1% to 100%")
    return fill


def parse_resize(text: str | int) -> tuple[int, int] | Area:
    """``1200x800``, ``1200`` for the longer side, or ``0.25MP`` for a number of megapixels."""
    area = re.fullmatch(r"(\d{1,4}(?:\.\d{1,6})?)\s*MP", str(text).strip(), re.IGNORECASE)
    if area:
        pixels = round(float(area[1]) * 1_000_000)
        if pixels < 1:
            raise UsageError(f"--resize {text}: use more than 0MP")
        return Area(pixels)
    match = re.fullmatch(r"(\d{1,9})(?:\s*x\s*(\d{1,9}))?", str(text).strip())
    if match is None:
        raise UsageError(f"--resize {text}: use WIDTHxHEIGHT or the longer side, in pixels, or 4MP")
    return _check_sides((int(match[1]), int(match[2] or match[1])), "--resize")


def _check_sides(size: tuple[int, int], flag: str) -> tuple[int, int]:
    if not all(1 <= side <= _MAX_SIDE for side in size):
        raise UsageError(f"{flag} {size[0]}x{size[1]}: use sides of 1 to {_MAX_SIDE:,} pixels")
    return size


def parse_shadow(text: str) -> Shadow | None:
    """``none``, ``soft`` or ``contact``, optionally with a strength: ``soft:40%``."""
    if text == "none":
        return None
    match = re.fullmatch(r"(soft|contact)(?::(\d+(?:\.\d+)?)%)?", str(text).strip())
    if match is None:
        raise UsageError(f"--shadow {text}: use none, soft or contact, with a strength (soft:40%)")
    kind = cast("ShadowKind", match[1])
    strength = float(match[2]) / 100 if match[2] else _STRENGTHS[kind]
    if strength > 1:
        raise UsageError(f"--shadow {text}: use 0% to 100%")
    return Shadow(kind, strength)


def parse_bytes(text: str | int, *, flag: str = "--max-bytes") -> int:
    """``10MB``, ``500kB``, ``2GB`` (decimal) or a number of bytes. flag: the option's name."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*(k|m|g)?b?", str(text).strip().lower())
    if match is None:
        raise UsageError(f"{flag} {text}: use a number with kB, MB or GB (10MB), or of bytes")
    limit = int(float(match[1]) * {None: 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2]])
    if limit < 1:
        raise UsageError(f"{flag} {text}: use 1 or more")
    return limit
