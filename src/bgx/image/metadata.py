"""What a photo's file says beside the pixels: EXIF and XMP, kept only where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bgx.image.exif import PREFIX, without_maker_note

if TYPE_CHECKING:
    from bgx.image.exif import Exif
    from bgx.settings import Format

_SEGMENT = 65533
"""Bytes that a segment of a JPEG holds (ITU-T T.81, B.1.1.4)."""

_MOST_EXIF = _SEGMENT - len(PREFIX) - 64
"""With room for a resolution that is added."""

_MOST_XMP = _SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")

_NAMES = {"jpg": "a JPEG", "tiff": "a TIFF"}


@dataclass(frozen=True, slots=True)
class Metadata:
    """exif: a TIFF structure. xmp: the packet. None where there is none.

    Both are for an upright picture of any size and without its background: no orientation, no
    number of pixels, no copies of the photo.
    """

    exif: bytes | None = None
    xmp: bytes | None = None


def clean_metadata(exif: Exif | None, xmp: bytes | None) -> tuple[Metadata, list[str]]:
    """What may be kept, and notes on what else was left out than the pictures that are in EXIF."""
    from bgx.image.xmp import clean_xmp

    kept, notes = exif.rewrite() if exif else (None, [])
    packet, more = clean_xmp(xmp)
    return Metadata(kept, packet), notes + more


def fit_metadata(metadata: Metadata | None, file_format: Format) -> tuple[Metadata, list[str]]:
    """What goes into a file of the format, and notes on what is too large for it."""
    if metadata is None:
        return Metadata(), []
    exif, xmp = metadata.exif, metadata.xmp
    notes = []
    # bgx writes TIFFs in this byte order alone, and a maker's note cannot be turned round.
    unfit = file_format == "tiff" and exif is not None and not exif.startswith(b"II")
    if file_format == "jpg" and exif and len(exif) > _MOST_EXIF:
        unfit = True
    if unfit and exif and (shorter := without_maker_note(exif)):
        exif = shorter
        notes.append(f"the maker's note left out: it does not fit into {_NAMES[file_format]}")
    if file_format == "jpg" and exif and len(exif) > _MOST_EXIF:
        exif = None
        notes = ["EXIF left out: too large for a JPEG"]
    if file_format == "jpg" and xmp and len(xmp) > _MOST_XMP:
        xmp = None
        notes.append("XMP left out: too large for a JPEG")
    return Metadata(exif, xmp), notes
