"""Options of the finished picture as people write them, and the settings they come to.

Both doors and the presets share these: one name, one form, one meaning each.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from bgx.errors import UsageError
from bgx.settings import (
    Backdrop,
    CanvasSettings,
    Length,
    OutputSettings,
    Shadow,
    expand_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from bgx.settings import (
        Align,
        Background,
        Colour,
        ColourSpace,
        Format,
        MatteKind,
        PngLevel,
        ShadowKind,
    )

_Value = TypeVar("_Value")

_STRENGTHS: dict[ShadowKind, float] = {"soft": 0.35, "contact": 0.5}


class PictureOptions(TypedDict, total=False):
    """The command line's options of the same names; None is as if left out."""

    format: Format | None
    quality: int | None
    png_level: PngLevel
    mask_only: bool
    background: str | Colour | Path | None
    crop: bool
    margin: str | int | None
    canvas: str | None
    fill: str | None
    align: Align
    upscale: bool
    resize: str | int | None
    shadow: str | None
    max_bytes: str | int | None
    colour: ColourSpace
    keep_metadata: bool
    matte: MatteKind
    refine: bool
    keep_colours: bool


SWITCHES = frozenset({"mask_only", "crop", "upscale", "keep_metadata", "refine", "keep_colours"})
"""Options that are on or off."""


def without_none(options: PictureOptions) -> PictureOptions:
    """Those that are given."""
    return cast("PictureOptions", {k: value for k, value in options.items() if value is not None})


def make_output(**given: Unpack[PictureOptions]) -> OutputSettings:
    """Raises UsageError."""
    options = without_none(given)
    _check_names(options)
    size, aspect = _parse(parse_canvas, options.get("canvas")) or (None, None)
    canvas = CanvasSettings(
        crop=options.get("crop", False),
        margin=_parse(parse_margin, options.get("margin")),
        size=size,
        aspect=aspect,
        fill=_parse(parse_fill, options.get("fill")),
        align=options.get("align", "center"),
        upscale=options.get("upscale", False),
        resize=_parse(parse_resize, options.get("resize")),
    )
    return OutputSettings(
        format=options.get("format"),
        quality=options.get("quality"),
        background=_parse(parse_background, options.get("background")),
        mask_only=options.get("mask_only", False),
        png_level=options.get("png_level", "fast"),
        canvas=canvas,
        shadow=_parse(parse_shadow, options.get("shadow")),
        max_bytes=_parse(parse_bytes, options.get("max_bytes")),
        colour=options.get("colour", "keep"),
        keep_metadata=options.get("keep_metadata", False),
        matte=options.get("matte", "raw"),
        refine=options.get("refine", False),
        keep_colours=options.get("keep_colours", False),
    )


def _check_names(options: PictureOptions) -> None:
    """Raises UsageError for a name that is none and for a switch that is neither on nor off."""
    for name, value in options.items():
        if name not in PictureOptions.__annotations__:
            import difflib

            near = difflib.get_close_matches(name, PictureOptions.__annotations__, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{name}: no such option{hint}")
        if name in SWITCHES and not isinstance(value, bool):
            raise UsageError(f"--{name.replace('_', '-')} {value!r}: use True or False")


def _parse(parse: Callable[[Any], _Value], text: Any) -> _Value | None:
    return None if text is None else parse(text)


def parse_background(text: str | Colour | Path) -> Background:
    """``blur``, ``blur:RADIUS``, ``original-greyed``, a colour, or the path of an image file."""
    if isinstance(text, Path):
        return text
    if not isinstance(text, str):
        return _check_colour(text)
    kind, _, radius = text.partition(":")
    if kind == "blur":
        return Backdrop("blur", _parse_number(radius, "--background", text) if radius else None)
    if text == "original-greyed":
        return Backdrop("grey")
    from bgx.image.colour import parse_colour

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
    return Length(float(match[1]), "%" if match[2] == "%" else "px")


def parse_canvas(text: str) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """``2000x2000`` (a size), ``square`` or ``4:5`` (an aspect): the one of the two, and None."""
    if text == "square":
        return None, (1, 1)
    match = re.fullmatch(r"(\d{1,9})\s*([x:])\s*(\d{1,9})", str(text).strip())
    if match is None:
        raise UsageError(f"--canvas {text}: use a size (2000x2000), square, or an aspect (4:5)")
    pair = int(match[1]), int(match[3])
    return (pair, None) if match[2] == "x" else (None, pair)


def parse_fill(text: str) -> float:
    """``85%`` as 0.85."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", str(text).strip())
    if match is None:
        raise UsageError(f"--fill {text}: use percent of the canvas (85%)")
    return float(match[1]) / 100


def parse_resize(text: str | int) -> tuple[int, int]:
    """``1200x800``, or ``1200`` for the longer side."""
    match = re.fullmatch(r"(\d{1,9})(?:\s*x\s*(\d{1,9}))?", str(text).strip())
    if match is None:
        raise UsageError(f"--resize {text}: use WIDTHxHEIGHT or the longer side, in pixels")
    return int(match[1]), int(match[2] or match[1])


def parse_shadow(text: str) -> Shadow | None:
    """``none``, ``soft`` or ``contact``, with a strength of its own as in ``soft:40%``."""
    if text == "none":
        return None
    match = re.fullmatch(r"(soft|contact)(?::(\d+(?:\.\d+)?)%)?", str(text).strip())
    if match is None:
        raise UsageError(f"--shadow {text}: use none, soft or contact, with a strength (soft:40%)")
    kind = cast("ShadowKind", match[1])
    return Shadow(kind, float(match[2]) / 100 if match[2] else _STRENGTHS[kind])


def parse_bytes(text: str | int) -> int:
    """``10MB``, ``500kB`` (thousands) or a number of bytes."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*(k|m)?b?", str(text).strip().lower())
    if match is None:
        raise UsageError(f"--max-bytes {text}: use a number with kB or MB (10MB), or of bytes")
    return int(float(match[1]) * {None: 1, "k": 1_000, "m": 1_000_000}[match[2]])


def _parse_number(text: str, option: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} {whole}: {text} is no number") from None
