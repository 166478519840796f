"""Reads formats that Pillow decodes correctly without help, and Pillow images."""

from __future__ import annotations

from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from bgx.image.exif import Exif, xmp_orientation
from bgx.image.readers.base import Decoded, NotReadError
from bgx.install import install_hint

SEVERAL = "first frame of several"

_HOLE = 256
"""Length of a run of zeros that an arithmetic coder never writes, bytes."""


def open_by_pillow(stream: BinaryIO, file_format: str) -> Image.Image:
    """Open a picture, not yet decoded. file_format: Pillow's name. Raises NotReadError."""
    # preinit() loads the plugins of the five commonest formats; init() loads all of them, which
    # takes as long as decoding a small photo.
    Image.preinit()
    if file_format not in Image.OPEN:
        Image.init()
    if file_format == "HEIF":
        _register_heif()
    try:
        return Image.open(stream, formats=(file_format,))
    except UnidentifiedImageError as error:
        raise NotReadError(
            f"damaged or truncated {file_format}, or a kind of it bgx cannot read"
        ) from error


def _register_heif() -> None:
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise NotReadError(f"HEIC needs an extra package; run: {install_hint('heif')}") from error
    pillow_heif.register_heif_opener()


class PillowReader:
    """See :class:`bgx.image.readers.base.Reader`. image: may be changed."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.size = image.size

    @property
    def orientation(self) -> int:
        return _read_orientation(Exif.parse(read_exif(self._image)), read_xmp(self._image))

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        image = self._image
        image.load()
        # A copy, because Pillow's writers would write the other frames of an animation too.
        return self.describe(image.copy() if getattr(image, "is_animated", False) else image)

    def describe(self, pixels: Image.Image) -> Decoded:
        """The given pixels together with the file's metadata."""
        image = self._image
        exif, xmp = Exif.parse(read_exif(image)), read_xmp(image)
        several = getattr(image, "is_animated", False)
        return Decoded(
            pixels,
            orientation=_read_orientation(exif, xmp),
            dpi=_read_dpi(image),
            icc=image.info.get("icc_profile"),
            exif=exif,
            xmp=xmp,
            # A phone's MPO holds one photo and its previews, not an animation.
            notes=[SEVERAL] if several and image.format != "MPO" else [],
        )


def _read_orientation(exif: Exif | None, xmp: bytes | None) -> int:
    """The orientation in EXIF, else the one in XMP."""
    told = exif and exif.orientation
    return told or xmp_orientation(xmp) or 1


def read_exif(image: Image.Image) -> bytes | None:
    """EXIF as stored in the file."""
    exif: bytes | None = image.info.get("exif")
    profile = image.info.get("Raw profile type exif")  # what ImageMagick writes into a PNG
    if exif is None and profile is not None:
        try:
            exif = bytes.fromhex("".join(profile.split("\n")[3:]))
        except ValueError:
            return None
    return exif


def read_xmp(image: Image.Image) -> bytes | None:
    xmp: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return xmp.encode() if isinstance(xmp, str) else xmp


def _read_dpi(image: Image.Image) -> tuple[float, float] | None:
    """The resolution in the format's own field."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return x, y


def holds_hole(compressed: bytes) -> bool:
    """Whether there is a long run of zeros inside arithmetically coded data, not at its end.

    It is what a part of a file that was never written or downloaded looks like.
    """
    at = compressed.find(bytes(_HOLE))
    return at >= 0 and bool(compressed[at:].strip(b"\0"))


def note_hole(decoded: Decoded) -> None:
    """Mark a picture as damaged because of a hole in its file that the decoder did not detect."""
    decoded.damaged = True
    decoded.notes.append("damaged: a hole of zeros in the middle of the file")
