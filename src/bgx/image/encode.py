"""Encodes a finished picture as a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL.PngImagePlugin import PngInfo

from bgx.errors import UnwritableError
from bgx.image.exif import PREFIX, add_to_tiff, with_resolution
from bgx.image.jpeg import encode_white_jpeg
from bgx.image.png import encode_png
from bgx.settings import LOSSLESS_FORMATS, Format, PngLevel

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from bgx.image.metadata import Metadata

_DEFAULT_QUALITIES: dict[Format, int] = {"jpg": 92, "avif": 80}
_WORST_QUALITY = 20

_MAX_SIDE: dict[Format, int] = {"jpg": 65_500, "webp": 16_383, "avif": 65_536}
"""Longest side, pixels; the other formats have no limit that matters here."""

_DPI_IN_EXIF = frozenset({"webp", "avif"})
"""Formats without a field for the resolution, which is written to EXIF instead."""


def encode_picture(
    picture: Image.Image,
    file_format: Format,
    *,
    name: str,
    quality: int | None = None,
    png_level: PngLevel = "fast",
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    metadata: Metadata | None = None,
    exact_white: bool = False,
    threads: int = 1,
) -> list[bytes]:
    """Encode a picture of mode RGBA, RGB or L; returns the file in pieces.

    name: of the file, for messages. quality: 1..100; None is lossless for WebP. icc: not written
    for a grey picture, which it could not describe. metadata: as
    :func:`bgx.image.metadata.fit_metadata` returns it. exact_white: in a JPEG of quality 80 or
    more, white pixels are white again after decoding. threads: how many may be used. Raises
    UnwritableError if the format cannot hold the picture.
    """
    _check_sides(picture.size, file_format, name)
    if picture.mode == "L":
        icc = None
    white_jpeg = exact_white and file_format == "jpg" and picture.mode == "RGB"
    in_exif = white_jpeg or file_format in _DPI_IN_EXIF
    exif, xmp = (metadata.exif, metadata.xmp) if metadata else (None, None)
    if dpi and (exif or in_exif):
        exif = with_resolution(exif, dpi)
    if file_format == "png" and png_level == "fast":
        return encode_png(picture, icc=icc, dpi=dpi, exif=exif, xmp=xmp, threads=threads)
    options = _compression(picture.mode, file_format, quality)
    if icc:
        options["icc_profile"] = icc
    if dpi and not in_exif:
        options["dpi"] = dpi
    if file_format != "tiff":
        options |= _describe(file_format, exif, xmp)
    stream = io.BytesIO()
    try:
        if white_jpeg:
            return [encode_white_jpeg(picture, **options)]
        if file_format == "avif":
            return [_encode_avif(picture, **options)]
        pillow_format = "JPEG" if file_format == "jpg" else file_format.upper()
        picture.save(stream, format=pillow_format, **options)
    except (OSError, ValueError, RuntimeError, SystemError) as error:
        raise UnwritableError(
            f"{name}: {picture.width} x {picture.height} cannot be stored as {file_format} "
            f"({error}); use --format png"
        ) from error
    if file_format == "tiff" and (exif or xmp):
        return add_to_tiff(stream.getvalue(), exif, xmp)
    return [stream.getvalue()]


def _encode_avif(picture: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    try:
        picture.save(stream, format="AVIF", **options)
    except RuntimeError:
        # The system may refuse threads.
        stream = io.BytesIO()
        picture.save(stream, format="AVIF", max_threads=1, **options)
    return stream.getvalue()


def _check_sides(size: tuple[int, int], file_format: Format, name: str) -> None:
    most = _MAX_SIDE.get(file_format)
    if most and max(size) > most:
        raise UnwritableError(
            f"{name}: {size[0]} x {size[1]} is too large for {file_format}, at most {most} a side; "
            "use --format png"
        )


def _compression(mode: str, file_format: Format, quality: int | None) -> dict[str, Any]:
    """Pillow's options for compressing a picture of this mode."""
    quality = quality or _DEFAULT_QUALITIES.get(file_format)
    match file_format:
        case "png":
            return {"optimize": True}
        case "webp" if quality is None:
            return {"lossless": True, "exact": True, "quality": 20, "method": 0}
        case "webp":
            return {"quality": quality, "method": 4}
        case "jpg":
            # Full chroma resolution: with 4:2:0, a red shoe on white gets a pink fringe.
            return {"quality": quality, "subsampling": 0}
        case "avif":
            # Lossy alpha saves only 3 % of the size, but leaves holes in the subject and specks.
            exact_alpha = {"advanced": {"alpha:lossless": "1"}} if mode == "RGBA" else {}
            return {"quality": quality, "speed": 8, "subsampling": "4:4:4"} | exact_alpha
        case "tiff":
            return {"compression": "tiff_adobe_deflate"}


def encode_within(
    limit: int,
    encode: Callable[[int | None], list[bytes]],
    file_format: Format,
    quality: int | None,
    *,
    name: str,
) -> tuple[list[bytes], int | None]:
    """Encode a file of at most ``limit`` bytes; its pieces, and its quality if it was lowered.

    encode: makes the file at a quality, 1..100 or None. quality: the requested one. If its file is
    too large, the highest lower quality that fits is searched for. Raises UnwritableError if even
    the lowest acceptable quality does not fit, or if the format is lossless.
    """
    pieces = encode(quality)
    size = sum(map(len, pieces))
    if size <= limit:
        return pieces, None
    best = (quality or _DEFAULT_QUALITIES.get(file_format, 0)) - 1
    if file_format in LOSSLESS_FORMATS or best < 0:
        # WebP becomes lossy with a quality, so the format need not change.
        remedy = "choose --format jpg" if file_format in LOSSLESS_FORMATS else "give --quality 90"
        raise UnwritableError(
            f"{name}: the lossless file has {size:,} bytes, more than --max-bytes {limit:,}; "
            f"make it smaller with --resize, or {remedy}"
        )
    fitting: tuple[list[bytes], int] | None = None
    worst = lowest = min(_WORST_QUALITY, best + 1)
    while worst <= best:
        middle = (worst + best + 1) // 2
        pieces = encode(middle)
        if sum(map(len, pieces)) <= limit:
            fitting, worst = (pieces, middle), middle + 1
        else:
            best = middle - 1
    if fitting is None:
        raise UnwritableError(
            f"{name}: does not fit into {limit:,} bytes at quality {lowest}; "
            "raise --max-bytes, or make it smaller with --resize"
        )
    return fitting


def _describe(file_format: Format, exif: bytes | None, xmp: bytes | None) -> dict[str, Any]:
    """Pillow's options for EXIF and XMP."""
    options: dict[str, Any] = {"exif": PREFIX + exif} if exif else {}
    if xmp and file_format == "png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    elif xmp:
        options["xmp"] = xmp
    return options
