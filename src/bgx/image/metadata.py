"""EXIF and XMP of a photo, which are kept only with ``--keep-metadata``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bgx.image.exif import PREFIX, without_maker_note

if TYPE_CHECKING:
    from bgx.image.exif import Exif
    from bgx.settings import Format

_SEGMENT = 65533
"""Most bytes in a segment of a JPEG (ITU-T T.81, B.1.1.4)."""

_MOST_EXIF = _SEGMENT - len(PREFIX) - 64
"""Leaves room for a resolution, which may be added."""

_MOST_XMP = _SEGMENT - len(b"http://ns.adobe.com/xap/1.0/\0")

_NAMES = {"jpg": "a JPEG", "tiff": "a TIFF"}


class Metadata(NamedTuple):
    """exif: a TIFF structure. xmp: the packet. None if there is none.

    Both are cleaned, so that they are true of the finished picture: they have no orientation, no
    picture size, and no copies of the photo.
    """

    exif: bytes | None = None
    xmp: bytes | None = None


def clean_metadata(exif: Exif | None, xmp: bytes | None) -> tuple[Metadata, list[str]]:
    """The metadata that may be kept, and notes on what was left out (except thumbnails in EXIF)."""
    from bgx.image.xmp import clean_xmp

    kept, notes = exif.rewrite() if exif else (None, [])
    packet, more = clean_xmp(xmp)
    return Metadata(kept, packet), notes + more


def fit_metadata(metadata: Metadata | None, file_format: Format) -> tuple[Metadata, list[str]]:
    """The metadata that a file of this format can hold, and notes on what was left out."""
    if metadata is None:
        return Metadata(), []
    exif, xmp = metadata.exif, metadata.xmp
    notes = []
    # bgx writes only little-endian TIFFs, and the byte order of a maker's note cannot be changed.
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
