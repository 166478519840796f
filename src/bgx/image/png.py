"""A fast PNG encoder: a single row filter, and deflate by ISA-L.

Pillow's encoder tries every filter on every row and compresses with zlib. For a cut-out of 12
megapixels that takes longer than everything before it. Here each row is stored as its difference to
the row above (filter type 2, PNG specification 9.2). numpy computes that in strips that fit into
the cache, and each strip is compressed by ISA-L level 1, or by zlib level 1 where ISA-L has no
wheel.

A large picture is compressed in segments of fixed size, each ending on a byte boundary. Several
threads can share them, and the file's bytes do not depend on how many threads there are.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bgx.threads import map_at_once

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

try:
    from isal import isal_zlib as deflate
except ImportError:
    import zlib as deflate  # type: ignore[no-redef]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {"L": 0, "RGB": 2, "RGBA": 6}
_FILTER_UP = 2
_STORED_FILTER = struct.pack("<B2HB", 0, 1, 0xFFFE, _FILTER_UP)
"""A stored block (RFC 1951, 3.2.4) with the first byte of a segment: its first row's filter."""

_ZLIB_HEADER = b"\x78\x01"  # RFC 1950: deflate, 32 KB window, fastest
_ADLER_BASE = 65521
_LEVEL = 1

_STRIP_BYTES = 1 << 19
"""Size of a strip, bytes. A strip and its copies fit into a core's level 2 cache."""

_SEGMENT_BYTES = 1 << 22
"""About the size of a segment before compression, bytes. Segments cost 0.01 % of a photo's file."""


class _Segment(NamedTuple):
    """Compressed rows.

    parts: the deflate stream. adler: Adler-32 of the filtered bytes before compression. size:
    number of these bytes.
    """

    parts: list[bytes]
    adler: int
    size: int


def encode_png(
    image: Image.Image,
    *,
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    threads: int = 1,
) -> list[bytes]:
    """Encode an image of mode L, RGB or RGBA. Returns the file as a list of pieces.

    threads: how many compress at once; the bytes do not depend on it. The pieces are not joined,
    because that would take as much memory again.
    """
    header = struct.pack(">2I5B", *image.size, 8, _COLOUR_TYPES[image.mode], 0, 0, 0)
    chunks = [_SIGNATURE, *_chunk(b"IHDR", header)]
    if icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0", zlib.compress(icc))
    if dpi:
        per_metre = (round(value / 0.0254) for value in dpi)
        chunks += _chunk(b"pHYs", struct.pack(">2IB", *per_metre, 1))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0", xmp)
    chunks += _chunk(b"IDAT", *_deflate_rows(image, threads))
    chunks += _chunk(b"IEND")
    return chunks


def _chunk(name: bytes, *parts: bytes) -> list[bytes]:
    check = zlib.crc32(name)
    for part in parts:
        check = deflate.crc32(part, check)
    return [struct.pack(">I", sum(map(len, parts))), name, *parts, struct.pack(">I", check)]


def _deflate_rows(image: Image.Image, threads: int) -> list[bytes]:
    """The zlib stream (RFC 1950) of all filtered rows, in pieces."""
    row_bytes = image.width * len(image.mode)
    count = min(max(1, image.height * row_bytes // _SEGMENT_BYTES), image.height)
    edges = [image.height * number // count for number in range(count + 1)]
    spans = list(pairwise(edges))
    segments = map_at_once(lambda span: _deflate_segment(image, *span), spans, threads, "deflate")
    adler = 1
    for segment in segments:
        adler = _combine_adler(adler, segment.adler, segment.size)
    parts = [part for segment in segments for part in segment.parts]
    return [_ZLIB_HEADER, *parts, struct.pack(">I", adler)]


def _deflate_segment(image: Image.Image, top: int, bottom: int) -> _Segment:
    """Filter and compress the rows top to bottom - 1. The last segment ends the stream."""
    width = image.width
    row_bytes = width * len(image.mode)
    step = max(1, _STRIP_BYTES // row_bytes)
    filtered = np.empty((step, 1 + row_bytes), np.uint8)
    filtered[:, 0] = _FILTER_UP
    above = np.zeros(row_bytes, np.uint8)
    if top:
        above = _read_rows(image, top - 1, top)[0]
    # Where nothing precedes its first byte, ISA-L 2.31 hashes an unset register, and which of some
    # matches it takes differs from run to run. So that byte is stored, as history of the others.
    parts = [_STORED_FILTER]
    compressor = deflate.compressobj(
        _LEVEL, deflate.DEFLATED, -deflate.MAX_WBITS, zdict=bytes([_FILTER_UP])
    )
    adler = 1
    for first in range(top, bottom, step):
        rows = _read_rows(image, first, min(first + step, bottom))
        strip = filtered[: len(rows)]
        np.subtract(rows[0], above, out=strip[0, 1:])
        np.subtract(rows[1:], rows[:-1], out=strip[1:, 1:])
        above = rows[-1]
        adler = deflate.adler32(strip, adler)
        parts.append(compressor.compress(strip.reshape(-1)[1 if first == top else 0 :]))
    # A full flush ends on a byte boundary, so that segments can be joined.
    last = bottom == image.height
    parts.append(compressor.flush(deflate.Z_FINISH if last else deflate.Z_FULL_FLUSH))
    return _Segment(parts, adler, (bottom - top) * (1 + row_bytes))


def _read_rows(image: Image.Image, top: int, bottom: int) -> NDArray[np.uint8]:
    """Rows as uint8 [bottom - top, width x channels].

    Only these rows are copied, so that the copy stays in the cache.
    """
    strip = image.crop((0, top, image.width, bottom))
    return np.frombuffer(strip.tobytes(), np.uint8).reshape(bottom - top, -1)


def _combine_adler(first: int, second: int, size: int) -> int:
    """Adler-32 (RFC 1950, 8.2) of two byte strings joined, from that of each.

    size: length of the second one.
    """
    a = (first & 0xFFFF) + (second & 0xFFFF) - 1
    b = (first >> 16) + (second >> 16) + size * ((first & 0xFFFF) - 1)
    return (b % _ADLER_BASE) << 16 | a % _ADLER_BASE
