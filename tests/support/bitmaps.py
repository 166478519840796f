"""PNG and BMP files of any variety, written by hand from their specifications."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from support.pictures import png_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Samples = NDArray[Any]

# PNG ----------------------------------------------------------------------------------------------

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type."""

_PASSES = [
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
]
"""Adam7: first column and row, steps across and down."""


def write_png(
    samples: Samples,
    colour_type: int,
    depth: int,
    *chunks: bytes,
    interlaced: bool = False,
    filters: bool = True,
) -> bytes:
    """samples: [height, width, channels], the numbers that the file is to hold. chunks: between the
    header and the pixels. filters: use all of them in turn."""
    height, width = samples.shape[:2]
    header = struct.pack(">II5B", width, height, depth, colour_type, 0, 0, int(interlaced))
    passes = [samples]
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in _PASSES]
    step = max(1, PNG_CHANNELS[colour_type] * depth // 8)
    data = b"".join(
        b"".join(_filter(_png_rows(part, depth), step, filters)) for part in passes if part.size
    )
    packed = zlib.compress(data)
    parts = [packed[at : at + 700] for at in range(0, len(packed), 700)]
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *chunks,
            *(png_chunk(b"IDAT", part) for part in parts),
            png_chunk(b"IEND"),
        )
    )


def _png_rows(samples: Samples, depth: int) -> list[bytes]:
    flat = samples.reshape(len(samples), -1)
    if depth >= 8:
        return [row.astype(f">u{depth // 8}").tobytes() for row in flat]
    places = np.arange(depth - 1, -1, -1)
    single = (flat[..., None] >> places & 1).astype(np.uint8).reshape(len(flat), -1)
    return [row.tobytes() for row in np.packbits(single, axis=1)]


def _filter(rows: list[bytes], step: int, all_kinds: bool) -> Iterator[bytes]:
    """PNG, 9.2. step: bytes of a pixel, at least 1."""
    above = bytes(len(rows[0]))
    for number, row in enumerate(rows):
        kind = number % 5 if all_kinds else 0
        left = bytes(step) + row[: len(row) - step]
        corner = bytes(step) + above[: len(row) - step]
        guessed = {
            0: lambda a, b, c: 0,
            1: lambda a, b, c: a,
            2: lambda a, b, c: b,
            3: lambda a, b, c: (a + b) // 2,
            4: _paeth,
        }[kind]
        different = (
            (x - guessed(a, b, c)) & 255
            for x, a, b, c in zip(row, left[: len(row)], above, corner[: len(row)], strict=True)
        )
        yield bytes([kind, *different])
        above = row


def _paeth(a: int, b: int, c: int) -> int:
    guess = a + b - c
    return min((a, b, c), key=lambda near: abs(guess - near))


# BMP ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bmp:
    """header: bytes of the second header. masks: red, green, blue, alpha; () for none written."""

    bits: int
    header: int = 40
    masks: tuple[int, ...] = ()
    top_down: bool = False

    @property
    def name(self) -> str:
        masks = " ".join(f"{mask:x}" for mask in self.masks)
        return f"BMP {self.bits} header {self.header} {masks}{' top-down' if self.top_down else ''}"


def write_bmp(pixels: Samples, kind: Bmp, palette: Samples | None = None) -> bytes:
    """pixels: [height, width], the numbers that the file is to hold. palette: [colours, 3]."""
    height, width = pixels.shape
    rows = pixels if kind.top_down else pixels[::-1]
    if kind.bits < 8:
        places = np.arange(kind.bits - 1, -1, -1)
        single = (rows[..., None] >> places & 1).astype(np.uint8).reshape(height, -1)
        packed = [row.tobytes() for row in np.packbits(single, axis=1)]
    elif kind.bits == 24:
        packed = [row.astype("<u4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes() for row in rows]
    else:
        packed = [row.astype(f"<u{kind.bits // 8}").tobytes() for row in rows]
    data = b"".join(row + bytes(-len(row) % 4) for row in packed)
    if kind.header == 12:
        second = struct.pack("<IHHHH", 12, width, height, 1, kind.bits)
    else:
        compression = 0
        if kind.masks:
            compression = 6 if kind.header == 40 and len(kind.masks) == 4 else 3
        shown = -height if kind.top_down else height
        colours = 0 if palette is None else len(palette)
        second = struct.pack(
            "<IiiHHIIiiII",
            *(kind.header, width, shown, 1, kind.bits, compression, len(data), 2835, 2835),
            *(colours, 0),
        )
        masks = struct.pack(f"<{len(kind.masks)}I", *kind.masks)
        second = (second + masks).ljust(kind.header, b"\0")
        if kind.header >= 108:
            second = second[:56] + b"BGRs" + second[60:]
    if palette is not None:
        order = palette[:, ::-1].astype(np.uint8)
        entries = order if kind.header == 12 else np.pad(order, ((0, 0), (0, 1)))
        second += entries.tobytes()
    at = 14 + len(second)
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + second + data


def pack_masks(channels: Samples, masks: tuple[int, ...]) -> Samples:
    """channels: [height, width, channels], each as many bits as its mask."""
    pixels = np.zeros(channels.shape[:2], np.uint32)
    for number, mask in enumerate(masks):
        if mask:
            shift = (mask & -mask).bit_length() - 1
            pixels |= channels[..., number].astype(np.uint32) << np.uint32(shift)
    return pixels
