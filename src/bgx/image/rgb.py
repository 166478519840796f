"""From any mode that Pillow opens to RGB of 8 bits."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

from bgx.image.icc import convert_colours

_SAMPLE_FORMAT = 339  # TIFF 6.0, page 80; 1 is unsigned

_BRIGHT = 16.0
"""A float picture below this runs from 0 to 1, with highlights above; others from 0 to 255."""


def to_rgb(
    image: Image.Image, icc: bytes | None
) -> tuple[Image.Image, Image.Image | None, bytes | None]:
    """RGB image, its alpha or None, and the profile that describes the RGB numbers.

    icc: the profile that describes the image's own numbers. Raises what Pillow raises.
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
        # The profile of a CMYK or grey picture cannot describe RGB numbers: use it up here.
        image, icc = convert_colours(image, icc), None
    if image.mode == "LAB":
        image = _lab_to_srgb(image)
    return image if image.mode == "RGB" else image.convert("RGB"), alpha, icc


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit and 32-bit grey to L. Pillow's ``convert("L")`` clips at 255 instead."""
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
    """The value of white: the type's own, guessed from the brightest where the type is wide."""
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
