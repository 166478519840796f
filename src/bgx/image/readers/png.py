"""Reads PNG: Pillow decodes the pixels, all other chunks are read here.

Pillow refuses a picture with a text or profile of more than a megabyte, ignores cICP, gAMA and
cHRM, and compares the transparent colour of tRNS with samples that it has already scaled. So it
gets only the chunks that hold pixels. See PNG, third edition, W3C 2025.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from bgx.image.exif import Exif, xmp_orientation
from bgx.image.ifd import DamagedError
from bgx.image.readers.base import Decoded, NotReadError
from bgx.image.readers.cicp import Primaries, profile_of_codes, profile_of_gamma
from bgx.image.readers.pillow import SEVERAL, open_by_pillow
from bgx.image.readers.splice import Span, splice

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"

_GREY, _RGB, _PALETTE = 0, 2, 3
"""Colour types."""

_WANTED = {b"PLTE", b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs", b"eXIf"}
_COLOURS = {b"iCCP", b"sRGB", b"gAMA", b"cICP"}
_TEXTS = {b"iTXt", b"zTXt", b"tEXt"}
_MOST = 1 << 26
"""Most bytes of a chunk other than pixels, compressed and decompressed."""

_MANY = 1 << 15
_LEAST = 256
"""Only so many chunks may be smaller than so many bytes on average. Each costs Pillow 50
microseconds, and a crafted file of a few megabytes could hold millions."""

_XMP_KEY = b"XML:com.adobe.xmp"
_RAW_EXIF_KEYS = (b"Raw profile type exif", b"Raw profile type APP1")
"""Keywords of texts in which ImageMagick stores EXIF."""


@dataclass(slots=True)
class _Chunks:
    """header: width, height, bit depth, colour type. found: content of the chunks in _WANTED, by
    name. pixels: places of the IDAT chunks. ended: whether there is an IEND chunk."""

    header: tuple[int, int, int, int]
    found: dict[bytes, bytes] = field(default_factory=dict)
    pixels: list[Span] = field(default_factory=list)
    xmp: bytes | None = None
    exif_text: bytes | None = None
    animated: bool = False
    ended: bool = False


class PngReader:
    """See :class:`bgx.image.readers.base.Reader`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._chunks = _read_chunks(stream)
        self.size = self._chunks.header[:2]
        exif = self._chunks.found.get(b"eXIf") or _read_raw_profile(self._chunks.exif_text)
        self._exif = Exif.parse(exif)

    @property
    def orientation(self) -> int:
        told = self._exif and self._exif.orientation
        return told or xmp_orientation(self._chunks.xmp) or 1

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        chunks = self._chunks
        image = self._open()
        image.load()
        notes = [SEVERAL] if chunks.animated else []
        if not chunks.ended:
            notes.append("the end of the file is missing, but all pixels are there")
        return Decoded(
            image,
            alpha=self._find_clear(image),
            orientation=self.orientation,
            dpi=_read_dpi(chunks.found.get(b"pHYs")),
            icc=_read_profile(chunks.found),
            told=not _COLOURS.isdisjoint(chunks.found),
            exif=self._exif,
            xmp=chunks.xmp,
            notes=notes,
        )

    def _open(self) -> Image.Image:
        chunks = self._chunks
        kept: list[bytes | Span] = [_SIGNATURE, Span(len(_SIGNATURE), 25)]  # IHDR
        if chunks.header[3] == _PALETTE:
            kept += [
                _chunk(name, chunks.found[name])
                for name in (b"PLTE", b"tRNS")
                if name in chunks.found
            ]
        return open_by_pillow(splice(self._stream, [*kept, *chunks.pixels, _END]), "PNG")

    def _find_clear(self, image: Image.Image) -> Image.Image | None:
        """The alpha of a picture in which one grey value or colour is transparent (11.3.1.1)."""
        clear = self._chunks.found.get(b"tRNS")
        _, _, depth, colour_type = self._chunks.header
        if clear is None or colour_type not in {_GREY, _RGB}:
            return None
        most = 2**depth - 1
        samples = [value & most for value in struct.unpack(f">{len(clear) // 2}H", clear)]
        if len(samples) != {_GREY: 1, _RGB: 3}[colour_type]:
            raise DamagedError("a transparent colour of the wrong size")
        if depth < 8:
            # Pillow has scaled the pixels already.
            samples = [value * 255 // most for value in samples]
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
        if colour_type == _GREY:
            return Image.fromarray(pixels != samples[0]).convert("L")
        wide = depth == 16
        high = [value >> 8 for value in samples] if wide else samples
        hidden = (pixels == np.array(high)).all(axis=2)
        if wide and hidden.any():
            # Pillow keeps only the upper bytes. Decoded with the other byte order, it keeps the
            # lower ones.
            lower = self._open()
            tile = lower.tile[0]  # type: ignore[attr-defined]
            lower.tile = [tile._replace(args="RGB;16L")]  # type: ignore[attr-defined]
            hidden &= (np.asarray(lower) == np.array([value & 255 for value in samples])).all(
                axis=2
            )
        return Image.fromarray(~hidden).convert("L")


def _read_chunks(stream: BinaryIO) -> _Chunks:
    """Read all chunks; of pixels only the places. Raises DamagedError, NotReadError."""
    length = stream.seek(0, 2)
    chunks: _Chunks | None = None
    for name, at, size in _walk(stream, length):
        if chunks is None:
            if name == b"CgBI":
                raise NotReadError(
                    "is a PNG of Apple's own kind (CgBI); save it as an ordinary one"
                )
            if name != b"IHDR" or size != 13:
                raise DamagedError("no header")
            chunks = _Chunks(struct.unpack(">IIBB", _read(stream, at, 10)))
        elif name == b"IDAT":
            chunks.pixels.append(Span(at - 8, min(size + 12, length - at + 8)))
        elif name == b"IEND":
            chunks.ended = True
            break
        elif name == b"acTL":
            chunks.animated = size == 8 and _read(stream, at, 4) > b"\0\0\0\1"
        elif name in _WANTED and size <= _MOST:
            chunks.found.setdefault(name, _read(stream, at, size))
        elif name in _TEXTS and size <= _MOST:
            _read_text(chunks, name, stream, at, size)
    if chunks is None or not chunks.pixels:
        raise DamagedError("truncated: no pixels")
    return chunks


def _walk(stream: BinaryIO, length: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, and offset and size of its content. Raises DamagedError."""
    at = len(_SIGNATURE)
    for number in count():
        if at + 8 > length:
            return
        if number > max(_MANY, at // _LEAST):
            raise DamagedError(f"{number:,} chunks in {at:,} bytes")
        stream.seek(at)
        size, name = struct.unpack(">I4s", stream.read(8))
        yield name, at + 8, size
        at += 12 + size


def _read(stream: BinaryIO, at: int, size: int) -> bytes:
    stream.seek(at)
    return stream.read(size)


def _read_text(chunks: _Chunks, name: bytes, stream: BinaryIO, at: int, size: int) -> None:
    keyword, found, _ = _read(stream, at, min(size, 80)).partition(b"\0")
    is_xmp = keyword == _XMP_KEY
    if not found or not (is_xmp or keyword in _RAW_EXIF_KEYS):
        return
    if (chunks.xmp if is_xmp else chunks.exif_text) is not None:
        return  # unpacking a text may take a while: only the first of each kind is
    text = _read(stream, at, size)[len(keyword) + 1 :]
    if name == b"zTXt":
        text = _inflate(text[1:]) or b""
    elif name == b"iTXt":
        compressed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        text = (_inflate(text) or b"") if compressed else text
    if is_xmp:
        chunks.xmp = text
    else:
        chunks.exif_text = text


def _read_raw_profile(text: bytes | None) -> bytes | None:
    """Parse EXIF from a text: lines with a name, a size and hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join((text or b"").split()[2:]).decode("ascii")) or None
    except ValueError:
        return None


def _inflate(data: bytes) -> bytes | None:
    """Decompress zlib data; None if it is damaged or too large."""
    decoder = zlib.decompressobj()
    try:
        inflated = decoder.decompress(data, _MOST)
    except zlib.error:
        return None
    return inflated if decoder.eof else None


def _read_profile(found: dict[bytes, bytes]) -> bytes | None:
    """The ICC profile, from the chunk with the highest precedence (4.3); None for sRGB."""
    codes = found.get(b"cICP", b"")
    if len(codes) == 4:
        if not codes[3]:
            raise NotReadError("has narrow-range (video) samples; save it with full range")
        return profile_of_codes(codes[0], codes[1])
    name, _, profile = found.get(b"iCCP", b"").partition(b"\0")
    if name and (icc := _inflate(profile[1:])):
        return icc
    if b"sRGB" in found:
        return None
    return profile_of_gamma(*_read_gamma(found))


def _read_gamma(found: dict[bytes, bytes]) -> tuple[float | None, Primaries | None]:
    gamma, points = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    told = int.from_bytes(gamma, "big") / 100_000 if len(gamma) == 4 else None
    if len(points) != 32:
        return told, None
    numbers = [number / 100_000 for number in struct.unpack(">8I", points)]
    white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
    return told, Primaries(red, green, blue, white)


def _read_dpi(chunk: bytes | None) -> tuple[float, float] | None:
    if chunk is None or len(chunk) != 9 or chunk[8] != 1:  # else the unit is unknown
        return None
    x, y = struct.unpack(">II", chunk[:8])
    return x * 0.0254, y * 0.0254


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
