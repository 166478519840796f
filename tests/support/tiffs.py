"""TIFF files of any variety, written by hand: Pillow writes only what it reads.

TIFF 6.0, BigTIFF and Adobe's technical notes, followed by somebody who does not share a line with
the reader under test.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Samples = NDArray[Any]

GREY_INVERTED, GREY, RGB, PALETTE, CMYK, YCBCR, LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
CHANNELS = {GREY_INVERTED: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3, ICC_LAB: 3}

BYTE, ASCII, SHORT, LONG, RATIONAL, LONG8 = 1, 2, 3, 4, 5, 16
_CODES = {BYTE: "B", SHORT: "H", LONG: "I", LONG8: "Q", 7: "B", 13: "I"}

Tag = tuple[int, int, Any]
"""Number, type, values: a sequence of numbers, bytes, or pairs for rationals."""


@dataclass(frozen=True)
class Variety:
    """How a picture's samples lie in a TIFF. kind: u, i or f. extra: values of ExtraSamples; None
    leaves the tag out where there are more samples than colours. small_map: palette of 8 bits."""

    photometric: int = RGB
    bits: int = 8
    kind: str = "u"
    planar: int = 1
    compression: str = "none"
    predictor: int = 1
    order: str = "<"
    tile: tuple[int, int] | None = None
    rows: int = 10
    fill_order: int = 1
    extra: tuple[int, ...] | None = ()
    big: bool = False
    subsampling: tuple[int, int] = (1, 1)
    small_map: bool = False
    say_format: bool = True
    more: tuple[Tag, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        default = Variety()
        told = [
            f"{key}={getattr(self, key)}"
            for key in self.__dataclass_fields__
            if key != "more" and getattr(self, key) != getattr(default, key)
        ]
        return " ".join(told) or "plain"


def write_tiff(samples: Samples, variety: Variety) -> bytes:
    """samples: [height, width, channels], the numbers that the file is to hold."""
    samples = samples if samples.ndim == 3 else samples[..., None]
    return join_pages([page_tags(samples, variety)], order=variety.order, big=variety.big)


def page_tags(samples: Samples, variety: Variety) -> tuple[list[Tag], list[bytes], bool]:
    """A page: its tags, its strips or tiles, and whether they are tiles."""
    height, width, channels = samples.shape
    tiled = variety.tile is not None
    across, down = variety.tile or (width, variety.rows)
    planes = [samples] if variety.planar == 1 else np.split(samples, channels, axis=2)
    chunks = []
    for plane in planes:
        for top in range(0, height, down):
            for left in range(0, width, across):
                piece = plane[top : top + down, left : left + across]
                if tiled:
                    rest = ((0, down - piece.shape[0]), (0, across - piece.shape[1]), (0, 0))
                    piece = np.pad(piece, rest, "edge")
                data = _COMPRESS[variety.compression](_pack(piece, variety))
                chunks.append(_reverse(data) if variety.fill_order == 2 else data)
    tags: list[Tag] = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [variety.bits] * channels),
        (259, SHORT, [_NUMBERS[variety.compression]]),
        (262, SHORT, [variety.photometric]),
        (277, SHORT, [channels]),
        (284, SHORT, [variety.planar]),
    ]
    if tiled:
        tags += [(322, LONG, [across]), (323, LONG, [down])]
    else:
        tags.append((278, LONG, [variety.rows]))
    if variety.fill_order != 1:
        tags.append((266, SHORT, [variety.fill_order]))
    if variety.predictor != 1:
        tags.append((317, SHORT, [variety.predictor]))
    if variety.extra:
        tags.append((338, SHORT, list(variety.extra)))
    if variety.say_format and variety.kind != "u":
        tags.append((339, SHORT, [{"i": 2, "f": 3}[variety.kind]] * channels))
    if variety.photometric == YCBCR:
        tags.append((530, SHORT, list(variety.subsampling)))
    return [*tags, *variety.more], chunks, tiled


def join_pages(
    pages: Iterable[tuple[list[Tag], list[bytes], bool]],
    *,
    order: str = "<",
    big: bool = False,
    children: dict[int, Iterable[tuple[list[Tag], list[bytes], bool]]] | None = None,
) -> bytes:
    """The file of several pages. children: pages in SubIFDs, by the number of their parent."""
    pointer = LONG8 if big else LONG
    data = bytearray(b"II" if order == "<" else b"MM")
    data += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    link = len(data) - (8 if big else 4)

    def put(at: int, value: int) -> None:
        data[at : at + (8 if big else 4)] = struct.pack(order + ("Q" if big else "I"), value)

    def add(page: tuple[list[Tag], list[bytes], bool]) -> tuple[int, int]:
        tags, chunks, tiled = page
        places = []
        for chunk in chunks:
            data.extend(bytes(len(data) % 2))
            places.append(len(data))
            data.extend(chunk)
        here = [
            *tags,
            (324 if tiled else 273, pointer, places),
            (325 if tiled else 279, LONG, [len(chunk) for chunk in chunks]),
        ]
        return _add_directory(data, sorted(t for t in here if t[2] is not None), order, big)

    for number, (tags, chunks, tiled) in enumerate(pages):
        below = [add(child)[0] for child in (children or {}).get(number, ())]
        pointers: list[Tag] = [(330, pointer, below)] if below else []
        at, following = add(([*tags, *pointers], chunks, tiled))
        put(link, at)
        link = following
    return bytes(data)


def write_exif(
    main: Sequence[Tag],
    *,
    details: Sequence[Tag] = (),
    place: Sequence[Tag] = (),
    following: Sequence[Tag] = (),
    order: str = "<",
) -> bytes:
    """EXIF as cameras write it. details: of EXIF's own directory. place: of GPS's. following: of
    the thumbnail's directory, whose offset (tag 0x0201) is set to the end of it all."""
    data = bytearray(b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    below = [(0x8769, details), (0x8825, place)]
    pointers: list[Tag] = [(tag, LONG, [0]) for tag, tags in below if tags]
    link = _put_directory(data, sorted([*main, *pointers]), order)
    for tag, tags in below:
        if tags:
            at = data.index(struct.pack(order + "HHI", tag, LONG, 1)) + 8
            data[at : at + 4] = struct.pack(order + "I", len(data))
            _put_directory(data, sorted(tags), order)
    if following:
        data[link : link + 4] = struct.pack(order + "I", len(data))
        start = len(data)
        _put_directory(data, sorted(following), order)
        at = data.index(struct.pack(order + "HHI", 0x0201, LONG, 1), start) + 8
        data[at : at + 4] = struct.pack(order + "I", len(data))
    return bytes(data)


def _put_directory(data: bytearray, tags: list[Tag], order: str) -> int:
    """Appends it, its values behind it; returns where the offset of the next one goes."""
    start = len(data)
    link = start + 2 + 12 * len(tags)
    data.extend(struct.pack(order + "H", len(tags)) + bytes(12 * len(tags) + 4))
    for number, (tag, kind, values) in enumerate(tags):
        packed = pack_values(kind, values, order)
        if len(packed) > 4:
            at = len(data)
            data.extend(packed + bytes(len(packed) % 2))
            packed = struct.pack(order + "I", at)
        head = struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        data[start + 2 + 12 * number : start + 14 + 12 * number] = head
    return link


def _add_directory(data: bytearray, tags: list[Tag], order: str, big: bool) -> tuple[int, int]:
    """Appends it; returns where it is, and where the offset of the next one goes."""
    inline = 8 if big else 4
    entries = []
    for tag, kind, values in tags:
        packed = pack_values(kind, values, order)
        count = len(values)
        if len(packed) > inline:
            data.extend(bytes(len(data) % 2))
            place = len(data)
            data.extend(packed)
            packed = struct.pack(order + ("Q" if big else "I"), place)
        head = struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count)
        entries.append(head + packed.ljust(inline, b"\0"))
    data.extend(bytes(len(data) % 2))
    at = len(data)
    data.extend(struct.pack(order + ("Q" if big else "H"), len(entries)))
    data.extend(b"".join(entries))
    following = len(data)
    data.extend(bytes(inline))
    return at, following


def pack_values(kind: int, values: Any, order: str) -> bytes:
    if isinstance(values, bytes):
        return values
    if kind == RATIONAL:
        flat = [part for pair in values for part in pair]
        return struct.pack(f"{order}{len(flat)}I", *flat)
    return struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)


# Samples to bytes -------------------------------------------------------------------------------


def _pack(piece: Samples, variety: Variety) -> bytes:
    rows, _, channels = piece.shape
    if variety.subsampling != (1, 1):
        return _pack_units(piece, *variety.subsampling)
    if variety.bits % 8:
        return _pack_bits(piece.reshape(rows, -1), variety.bits)
    size = variety.bits // 8
    stored = piece.astype(f"{variety.order}{variety.kind}{size}")
    if variety.predictor == 3:
        return _pack_float_differences(stored.astype(f">f{size}"), channels)
    if variety.predictor == 2:
        whole = piece.astype(f"{variety.kind}{size}").view(f"u{size}")
        whole[:, 1:] -= whole[:, :-1].copy()
        return whole.astype(f"{variety.order}u{size}").tobytes()
    return stored.tobytes()


def _pack_bits(rows: Samples, bits: int) -> bytes:
    places = np.arange(bits - 1, -1, -1)
    single = (rows[..., None] >> places & 1).astype(np.uint8)
    return np.packbits(single.reshape(len(rows), -1), axis=1).tobytes()


def _pack_float_differences(values: Samples, channels: int) -> bytes:
    """The bytes of each row by significance, then each as the difference to its channel's last."""
    packed = []
    for row in values.reshape(len(values), -1):
        parts = np.frombuffer(row.tobytes(), np.uint8).reshape(row.size, row.itemsize).T.ravel()
        different = parts.copy()
        different[channels:] -= parts[:-channels]
        packed.append(different.tobytes())
    return b"".join(packed)


def _pack_units(piece: Samples, across: int, down: int) -> bytes:
    """Blocks of lightness with one pair of colours each, the piece made whole at its edges."""
    height, width, _ = piece.shape
    whole = np.pad(piece, ((0, -height % down), (0, -width % across), (0, 0)), "edge")
    data = bytearray()
    for top in range(0, len(whole), down):
        for left in range(0, whole.shape[1], across):
            unit = whole[top : top + down, left : left + across]
            data += unit[..., 0].astype(np.uint8).tobytes()
            data += bytes(round(float(unit[..., c].mean())) for c in (1, 2))
    return bytes(data)


def _reverse(data: bytes) -> bytes:
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)


def _pack_runs(data: bytes) -> bytes:
    """PackBits without a single run."""
    return b"".join(
        bytes([len(part) - 1]) + part
        for part in (data[at : at + 128] for at in range(0, len(data), 128))
    )


def _pack_lzw(data: bytes) -> bytes:
    """LZW whose table is cleared before its codes grow longer than 9 bits."""
    text = []
    for at in range(0, len(data), 250):
        text += [256, *data[at : at + 250]]
    bits = "".join(f"{code:09b}" for code in [*text, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "lzw": _pack_lzw,
    "deflate": zlib.compress,
    "old-deflate": zlib.compress,
    "packbits": _pack_runs,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_XZ),
}
_NUMBERS = {
    "none": 1,
    "lzw": 5,
    "deflate": 8,
    "old-deflate": 32946,
    "packbits": 32773,
    "lzma": 34925,
}

__all__ = ["Variety", "join_pages", "page_tags", "replace", "write_exif", "write_tiff"]
