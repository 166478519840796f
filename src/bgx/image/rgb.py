"""Convert pictures of any mode that Pillow opens to 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, ImageCms

from bgx.image.icc import convert_colours

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS_AT_ONCE = 256

_BRIGHT = 16.0
"""In float pictures whose highest value is below this, 1 is white; in others 255 or 65535, or the
highest value if it is above both."""


def to_rgb(
    image: Image.Image, icc: bytes | None
) -> tuple[Image.Image, Image.Image | None, bytes | None]:
    """Convert an image to mode RGB.

    icc: the image's colour profile. Returns the image, its alpha or None, and the profile of the
    result or None. Raises what Pillow raises.
    """
    alpha = None
    if image.has_transparency_data and image.mode not in {"I;16", "I", "F"}:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema() == (255, 255):
            alpha = None
        # Grey stays grey: a grey profile describes it.
        image = rgba.convert("L" if image.mode in {"1", "L", "LA"} else "RGB")
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        clear = image.info.get("transparency")  # in a PNG, the one grey value that is transparent
        if clear is not None:
            alpha = Image.fromarray(np.asarray(image) != clear).convert("L")
        image = Image.fromarray(scale_to_8_bits(np.asarray(image)))
    if icc is not None and icc[16:20] != b"RGB ":
        # A CMYK or grey profile cannot describe RGB values, so convert with it now.
        image, icc = convert_colours(image, icc), None
    if image.mode == "LAB":
        image = _lab_to_srgb(image)
    return image if image.mode == "RGB" else image.convert("RGB"), alpha, icc


def scale_to_8_bits(
    values: NDArray[Any], white: float | None = None, *, invert: bool = False
) -> NDArray[np.uint8]:
    """Scale samples of more than 8 bits to 0..255; undefined ones become 0.

    values: any shape. white: the value of white; None guesses it from the highest value. invert:
    0 is white.
    """
    brightest = 0.0
    if white is None:
        brightest = float(values.max(initial=0, where=np.isfinite(values)))
        white = find_white(values.dtype, brightest)
    scale = np.float32(255 / white) if white else np.float32(0)
    scaled = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS_AT_ONCE):
        rows = values[top : top + _ROWS_AT_ONCE]
        if values.dtype.kind == "f":
            rows = np.nan_to_num(rows, nan=0.0, posinf=brightest, neginf=0.0)
        rows = rows.astype(np.float32) * scale
        if invert:
            rows = 255 - rows
        scaled[top : top + _ROWS_AT_ONCE] = (rows + np.float32(0.5)).clip(0, 255)
    return scaled


def find_white(dtype: np.dtype[Any], peak: float) -> float:
    """The value of white: that of the type; for 32 bits, a guess from the highest value, `peak`."""
    if dtype.kind == "f":
        whites = [255.0, 65535.0] if peak >= _BRIGHT else [1.0]
    else:
        whites = [65535.0] if dtype.itemsize == 2 else [255.0, 65535.0, float(np.iinfo(dtype).max)]
    return next((white for white in whites if peak <= white), peak)


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    return cast("Image.Image", ImageCms.applyTransform(image, transform))
