"""Compose the photo, its alpha, a background and a shadow into one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from bgx.image.tiles import split_rows

if TYPE_CHECKING:
    from bgx.settings import Colour

_WHERE_ZERO = [255] + [0] * 255
_NOTHING = (0, 0, 0, 0)


def cut_out(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """The cut-out with straight alpha, mode RGBA. Red, green and blue are 0 where alpha is 0.

    image: mode RGB; it becomes the result and must not be used afterwards. alpha: mode L, same
    size. Without the zeros, the removed background could be recovered from the file, and the file
    would be larger.
    """
    image.putalpha(alpha)
    width, height = image.size
    left, top, right, bottom = alpha.getbbox() or (0, 0, 0, 0)
    beside = ((0, 0, width, top), (0, bottom, width, height))
    for box in (*beside, (0, top, left, bottom), (right, top, width, bottom)):
        image.paste(_NOTHING, box)
    # With a mask of mode 1 Pillow pastes without blending, ten times as fast as with mode L.
    for strip in split_rows((left, top, right, bottom)):
        image.paste(_NOTHING, strip, alpha.crop(strip).point(_WHERE_ZERO, "1"))
    return image


def flatten(image: Image.Image, alpha: Image.Image, background: Colour) -> Image.Image:
    """The photo on a plain background, mode RGB. Where alpha is 0 it is exactly that colour."""
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=alpha)
    return canvas


def compose_picture(
    image: Image.Image,
    alpha: Image.Image,
    backdrop: Image.Image | None,
    shadow: Image.Image | None,
) -> Image.Image:
    """The subject on top of its shadow on top of a backdrop.

    image: mode RGB. alpha: mode L. backdrop: mode RGB, RGBA for a translucent one, or None. shadow:
    mode L, the alpha of a black layer, or None. All have the same size, and may become the result.
    Returns mode RGB, or RGBA if there is no opaque backdrop.
    """
    if backdrop is None or backdrop.mode == "RGBA":
        picture = cut_out(image, alpha)
        if shadow is not None:
            ground = Image.new("RGBA", picture.size)
            ground.putalpha(shadow)
            picture = Image.alpha_composite(ground, picture)
        return Image.alpha_composite(backdrop, picture) if backdrop else picture
    if shadow is not None:
        backdrop.paste((0, 0, 0), mask=shadow)
    backdrop.paste(image, mask=alpha)
    return backdrop
