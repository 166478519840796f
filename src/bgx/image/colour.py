"""Colours as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import ImageColor

from bgx.errors import UsageError

if TYPE_CHECKING:
    from bgx.settings import Colour


def parse_colour(text: str) -> Colour:
    """A CSS name, ``#rgb``, ``#rrggbb`` or ``rgb(r, g, b)``; raises UsageError."""
    try:
        colour = ImageColor.getrgb(text.strip())
    except ValueError:
        colour = (0, 0, 0, 0)
    if len(colour) == 4:  # unknown, or with an alpha of its own
        raise UsageError(f"--background {text}: use a name (white) or a hex colour (#ffffff)")
    return colour
