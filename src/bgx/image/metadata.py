"""What a photo's file says beside the pixels: EXIF and XMP, kept only where that is asked for."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from PIL import ExifTags, Image

log = logging.getLogger(__name__)

_TAGS = ExifTags.Base

# They describe how a TIFF file stores its pixels, or their number: not true of another file.
_OF_THE_FILE = frozenset(
    {
        *range(0x0100, 0x0104),  # size, bits, compression
        *(0x0106, 0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x011C),  # layout of the strips
        *(0x013D, 0x0140, 0x0142, 0x0143, 0x0144, 0x0145, 0x014A, 0x0152, 0x0153, 0x015B),
        *(0x0200, 0x0201, 0x0202, 0x0211, 0x0212, 0x0213, 0x0214),  # JPEG inside, colour coding
        *(0x02BC, 0x8773),  # XMP, ICC profile: written by themselves
    }
)

_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)\d")


@dataclass(frozen=True, slots=True)
class Metadata:
    """exif: as :meth:`PIL.Image.Exif.tobytes` gives it. xmp: the packet. None where there is none.

    Both are for an upright picture of any size: orientation 1, no thumbnail (it would show the
    removed background), no number of pixels.
    """

    exif: bytes | None = None
    xmp: bytes | None = None


def read_metadata(image: Image.Image) -> Metadata:
    """Of an image that Pillow opened and loaded. What is damaged is left out."""
    xmp = image.info.get("xmp")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    return Metadata(_read_exif(image), _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if xmp else None)


def _read_exif(image: Image.Image) -> bytes | None:
    try:
        exif = image.getexif()
        for tag in _OF_THE_FILE & exif.keys():
            del exif[tag]
        if not exif:
            return None
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for tag in (_TAGS.ExifImageWidth, _TAGS.ExifImageHeight):
            details.pop(tag, None)
        exif[_TAGS.Orientation] = 1
        return exif.tobytes()
    except Exception as error:  # noqa: BLE001 - broken EXIF says nothing about the pixels
        log.debug("EXIF ignored: %s", error)
        return None
