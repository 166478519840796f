"""From a file, or its bytes, to a :class:`Photo`.

Pictures are untrusted input: only the listed formats are tried (Pillow would hand EPS to
Ghostscript), the size is checked before anything is decoded, and whatever a decoder raises ends as
one :class:`~bgx.errors.PictureError` that names the file.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from bgx.errors import PictureError, TooLargeError, UnreadableError

if TYPE_CHECKING:
    from bgx.settings import ReadSettings

log = logging.getLogger(__name__)

Picture = Path | bytes | Image.Image
"""Where a photo may come from: a file, a whole file's bytes, an image of Pillow's."""

READ_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
"""Pillow's names of the formats that are tried; HEIF needs the extra ``heif``."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff"}
    | {".bmp", ".dib", ".gif", ".avif", ".heic", ".heif"}
)
"""Suffixes, lower case, of what is taken for a picture when a folder is walked."""

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"mif1", b"msf1"})

# Pixels hidden under the photo's own alpha must not reach the network. Mid-grey leaves white
# products and black ones both visible against it.
_HIDDEN = (128, 128, 128)


_Transpose = Image.Transpose
_TURNS = {  # EXIF 2.3, 4.6.4 A, tag Orientation
    2: _Transpose.FLIP_LEFT_RIGHT,
    3: _Transpose.ROTATE_180,
    4: _Transpose.FLIP_TOP_BOTTOM,
    5: _Transpose.TRANSPOSE,
    6: _Transpose.ROTATE_270,
    7: _Transpose.TRANSVERSE,
    8: _Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[tag] for tag in (5, 6, 7, 8)}


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded picture, upright.

    image: mode RGB, full size. alpha: mode L, same size, or None where the file had none or an
    opaque one. working: mode RGB, long side at most ``ReadSettings.max_size``; what the network
    sees. icc: an RGB profile that describes ``image``. dpi: horizontal, vertical. notes: what the
    report should say about the file.
    """

    image: Image.Image
    alpha: Image.Image | None
    working: Image.Image
    icc: bytes | None
    dpi: tuple[float, float] | None
    notes: tuple[str, ...] = ()


def count_pixels(source: Picture) -> int:
    """Width x height from the file's header, 0 where it cannot be read; never raises."""
    if isinstance(source, Image.Image):
        return source.width * source.height
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(stream, formats=_formats()) as opened:
            return opened.width * opened.height
    except Exception:  # noqa: BLE001 - the reader says what is wrong with it, in its turn
        return 0


def read_photo(source: Picture, settings: ReadSettings, *, name: str) -> Photo:
    """Decode a picture.

    source: a path, a whole file's bytes, or an image of Pillow's, which stays untouched. name: what
    messages call it.

    Raises UnreadableError (missing, no permission, empty, truncated, not a picture) and
    TooLargeError (more than ``settings.max_pixels``, or more than memory holds).
    """
    try:
        if isinstance(source, Image.Image):
            return make_photo(source.copy(), settings, name=name)
        with (
            io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream,
            _open(stream, name) as opened,
        ):
            return make_photo(opened, settings, name=name)
    except PictureError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise TooLargeError(f"{name}: too large to decode in memory; scale it down") from error
    except OSError as error:
        # Without an errno it is Pillow's own word on the contents, not the system's on the file.
        reason = error.strerror if error.errno else f"damaged or truncated ({error})"
        raise UnreadableError(f"{name}: cannot be read: {reason}") from error
    except Exception as error:
        # Decoders of damaged files raise nearly anything: SyntaxError, struct.error, ValueError.
        raise UnreadableError(f"{name}: cannot be read: damaged ({error})") from error


def make_photo(image: Image.Image, settings: ReadSettings, *, name: str) -> Photo:
    """A photo from an image Pillow opened; the image is taken over and must not be used again.

    Raises TooLargeError before anything is decoded, and whatever Pillow's decoder raises.
    """
    width, height = image.size
    if width * height > settings.max_pixels:
        raise TooLargeError(
            f"{name}: {width} x {height} is more than {settings.max_pixels:,} pixels; "
            "raise --max-pixels if you trust it"
        )
    # A phone's MPO holds one photo and its previews, not an animation.
    animated = image.format != "MPO" and getattr(image, "is_animated", False)
    image.load()
    dpi = _read_dpi(image)
    icc = _read_icc(image)
    orientation = _read_orientation(image)
    if orientation is not None:
        image = image.transpose(orientation)
        if dpi and orientation in _SIDEWAYS:
            dpi = dpi[::-1]
    rgb, alpha, icc = _to_rgb(image, icc)
    working = _shrink(rgb, alpha, settings.max_size)
    return Photo(rgb, alpha, working, icc, dpi, ("first frame of several",) if animated else ())


def _formats() -> tuple[str, ...]:
    Image.init()
    _register_heif()
    return tuple(name for name in READ_FORMATS if name in Image.OPEN)


def _register_heif() -> None:
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _open(stream: BinaryIO, name: str) -> Image.Image:
    try:
        return Image.open(stream, formats=_formats())
    except UnidentifiedImageError as error:
        raise UnreadableError(_explain_unidentified(stream, name)) from error


def _explain_unidentified(stream: BinaryIO, name: str) -> str:
    stream.seek(0)
    head = stream.read(16)
    if not head:
        return f"{name}: is empty (0 bytes)"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return f'{name}: HEIC needs an extra package; run: pip install "bgx[heif]"'
    return f"{name}: not a picture bgx can read (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC)"


def _read_orientation(image: Image.Image) -> Image.Transpose | None:
    """How to turn the picture upright; None where it is."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # noqa: BLE001 - broken EXIF says nothing about the pixels
        log.debug("EXIF ignored: %s", error)
        return None


def _read_dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if x > 0 and y > 0 else None


def _read_icc(image: Image.Image) -> bytes | None:
    """The embedded profile if it has a profile's header (ICC.1, 7.2: ``acsp`` at byte 36)."""
    icc = image.info.get("icc_profile")
    return icc if isinstance(icc, bytes) and icc[36:40] == b"acsp" else None


def _to_rgb(
    image: Image.Image, icc: bytes | None
) -> tuple[Image.Image, Image.Image | None, bytes | None]:
    """RGB image, its alpha or None, and the profile that describes the RGB numbers."""
    alpha = None
    if image.has_transparency_data and image.mode not in {"I;16", "I", "F"}:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema() == (255, 255):
            alpha = None
        # Grey stays grey: a grey profile describes it.
        image = rgba.convert("L" if image.mode in {"LA", "La"} else "RGB")
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        image = _scale_to_8_bits(image)
    if icc is not None and icc[16:20] != b"RGB ":
        # The profile of a CMYK or grey picture cannot describe RGB numbers: use it up here.
        image, icc = _convert_to_srgb(image, icc), None
    if image.mode == "LAB":
        image = _lab_to_srgb(image)
    return image if image.mode == "RGB" else image.convert("RGB"), alpha, icc


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit and 32-bit grey to L. The white point is the type's own, guessed where it has none.

    Pillow's ``convert("L")`` clips at 255 instead.
    """
    values = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(values.max(initial=0.0))
    white_points = (65535.0, 4294967295.0) if image.mode != "F" else (1.0, 255.0, 65535.0)
    white = next((white for white in white_points if peak <= white), peak)
    return Image.fromarray((values * (255.0 / white) + 0.5).clip(0, 255).astype(np.uint8))


def _convert_to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.debug("ICC profile ignored: %s", error)
        return image.convert("RGB")
    return cast("Image.Image", converted)


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    return cast("Image.Image", ImageCms.applyTransform(image, transform))


def _shrink(image: Image.Image, alpha: Image.Image | None, max_size: int) -> Image.Image:
    """The working image: long side at most max_size, never enlarged."""
    scale = min(1.0, max_size / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # The gap averages whole blocks of pixels first: a quarter of the time, same masks.
    working = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0)
    if alpha is not None:
        shown = alpha.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0)
        working = Image.composite(working, Image.new("RGB", size, _HIDDEN), shown)
    return working
