"""Convert pictures of any mode that Pillow opens to 8-bit RGB."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

from bgx.image.icc import convert_colours

_SAMPLE_FORMAT = 339  # TIFF 6.0, page 80; 1 is unsigned

_BRIGHT = 16.0
"""Float pictures whose highest value is below this have 1 as white, others 255 or 65535. If the
highest value is above that, it is white."""


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
        clear = image.info.get("transparency")  # of a PNG, the one grey that is
        if clear is not None:
            alpha = Image.fromarray(np.asarray(image) != clear).convert("L")
        image = _scale_to_8_bits(image)
    if icc is not None and icc[16:20] != b"RGB ":
        # A CMYK or grey profile cannot describe RGB values, so convert with it now.
        image, icc = convert_colours(image, icc), None
    if image.mode == "LAB":
        image = _lab_to_srgb(image)
    return image if image.mode == "RGB" else image.convert("RGB"), alpha, icc


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit and 32-bit grey to mode L. Pillow's ``convert("L")`` would clip at 255."""
    values = np.asarray(image)
    if image.mode == "I" and getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT) == (1,):
        values = values.view(np.uint32)  # Pillow reads unsigned numbers as signed ones
    if values.dtype.kind == "f":
        brightest = float(values.max(initial=0, where=np.isfinite(values)))
        values = np.nan_to_num(values, nan=0.0, posinf=brightest, neginf=0.0)
    white = _find_white(values.dtype, float(values.max()))
    scaled = values.astype(np.float32) * np.float32(255 / white) + np.float32(0.5)
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))


def _find_white(dtype: np.dtype[Any], peak: float) -> float:
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
