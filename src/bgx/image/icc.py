"""Colour profiles, with littleCMS through Pillow. A picture without a profile is taken as sRGB."""

from __future__ import annotations

import io
import logging
from functools import cache
from typing import TYPE_CHECKING, cast

from PIL import Image, ImageCms

if TYPE_CHECKING:
    from bgx.settings import Colour

log = logging.getLogger(__name__)


@cache
def srgb_profile() -> bytes:
    """An sRGB profile for files.

    Its date (ICC.1, 7.2.7) is fixed, so that equal pictures give equal files.
    """
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes((0x07, 0xE0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0)) + profile[36:]


def convert_colours(
    image: Image.Image, source: bytes | None, target: bytes | None = None
) -> Image.Image:
    """Convert a picture from one profile to another. Returns mode RGB.

    image: its mode must be the one that the profile ``source`` describes. source, target: profiles;
    None is sRGB. If both are equal, the image itself is returned. The intent is relative
    colorimetric with black-point compensation, the default of photo editors. A profile that
    littleCMS cannot use is treated as sRGB.
    """
    if source == target and image.mode == "RGB":
        return image
    try:
        converted = ImageCms.profileToProfile(
            image,
            _open_profile(source),
            _open_profile(target),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.debug("ICC profile ignored: %s", error)
        return image.convert("RGB")
    return cast("Image.Image", converted)


def convert_colour(colour: Colour, target: bytes | None) -> Colour:
    """Convert an sRGB colour to a profile. Black and white stay as they are."""
    if target is None or colour in {(0, 0, 0), (255, 255, 255)}:
        return colour
    pixel = convert_colours(Image.new("RGB", (1, 1), colour), None, target).getpixel((0, 0))
    return cast("Colour", pixel)


def _open_profile(icc: bytes | None) -> ImageCms.ImageCmsProfile:
    if icc is None:  # littleCMS's own, not the file's, whose numbers are rounded
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsProfile(io.BytesIO(icc))
