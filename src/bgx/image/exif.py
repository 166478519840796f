"""Reads EXIF (orientation, resolution), and rewrites it for the finished picture.

Values are copied byte by byte, never decoded and encoded again: text in any encoding, undefined
tags and maker's notes stay as the camera wrote them.
"""

from __future__ import annotations

import io
import math
import re
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bgx.image.ifd import SIZES, DamagedError, Directory, Structure

PREFIX = b"Exif\0\0"
"""Bytes in front of the TIFF structure of EXIF in a JPEG."""

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
_EXIF, _GPS, _INTEROPERABILITY = 0x8769, 0x8825, 0xA005
_MAKER_NOTE, _COLOUR_SPACE, _INTEROPERABILITY_INDEX = 0x927C, 0xA001, 0x0001

# Tags about a file's own pixels (layout, size, orientation), which are not valid for another file.
_OF_THE_FILE = frozenset(
    {
        *range(0x00FE, 0x0104),  # kind of page, size, bits, compression
        *(0x0106, 0x0107, 0x0108, 0x0109, 0x010A, 0x0111, 0x0112, 0x0115, 0x0116, 0x0117),
        *(0x0118, 0x0119, 0x011C, 0x0120, 0x0121, 0x0122, 0x0123, 0x0124, 0x0125, 0x0129),
        0x012D,  # transfer function
        *range(0x013D, 0x0149),  # predictor, colours of white and of the primaries, palette, tiles
        *range(0x014A, 0x0160),  # pages below, inks, extra samples, ranges, index
        *range(0x0200, 0x020A),  # JPEG inside
        *range(0x0211, 0x0215),  # subsampling
        *(0x02BC, 0x8773),  # XMP and ICC profile: written by themselves
        *(0x80E3, 0x80E4, 0x80E5, 0x80E6, 0x828D, 0x828E, 0x9216),
        *(0xEA1C, 0xEA1D),  # room left for later, and how far it moved the maker's note
        # Of EXIF's own directory, the subject's place, colours and size:
        *(0x9214, 0xA214, 0xA001, 0xA002, 0xA003, 0xA005, 0xA500),
    }
)

# Copies of the photo with its background: Photoshop's thumbnails and layers.
_PICTURES = frozenset({0x8649, 0x935C})

_SIGNATURES = re.compile(
    rb"\xd8\xff[\xc0-\xfe]"  # JPEG; some makers change the byte before these
    rb"|\x89PNG\r\n|RIFF....WEBP|8BPS\0|ftyp(?:heic|heix|avif|mif1)"
    # JPEG, PNG, WebP, GIF, TIFF of both orders, AVIF and HEIC as base64
    rb"|(?:/9j/[2-7x/]|iVBORw0KGgo|UklGR|R0lGOD|SUkqA|TU0AK|AAAA..Z0eX)[A-Za-z0-9+/=]{40}",
    re.DOTALL,
)

_XMP = 0x02BC
_POINTERS = frozenset({13, 16, 17, 18})
"""Types that no tag of EXIF has: offsets and 64-bit numbers."""

_MOST_UNKNOWN = 1 << 16
"""Private tags of a TIFF with more bytes than this are not kept: they may hold anything."""

_MOST_PINNED = 60_000
"""A maker's note that ends beyond this offset cannot keep its offset in a JPEG."""

_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*(\d)")


def holds_picture(data: bytes) -> bool:
    """Whether the data contains the signature of a picture format anywhere."""
    return _SIGNATURES.search(data) is not None


def xmp_orientation(xmp: bytes | None) -> int | None:
    found = _XMP_ORIENTATION.search(xmp) if xmp else None
    return int(found[1]) if found else None


class _Value(NamedTuple):
    kind: int
    values: int
    data: bytes


@dataclass(slots=True)
class _Block:
    """Directories to be written.

    order: byte order, ``<`` or ``>``. main: values of the first directory by tag. below: values of
    the directories that its tags point to. pinned: the original offset of the maker's note, which
    it keeps if possible: most makers' notes have offsets relative to the beginning of EXIF.
    """

    order: str
    main: dict[int, _Value] = field(default_factory=dict)
    below: dict[int, dict[int, _Value]] = field(default_factory=dict)
    pinned: int | None = None

    def swap(self) -> None:
        """Change the byte order."""
        self.order = "<" if self.order == ">" else ">"
        for values in (self.main, *self.below.values()):
            for tag, value in values.items():
                values[tag] = value._replace(data=_swap(value))

    def to_bytes(self) -> bytes:
        head = {"<": b"II*\0", ">": b"MM\0*"}[self.order]
        return head + struct.pack(self.order + "I", 8) + self.lay_out(8)

    def lay_out(self, start: int) -> bytes:
        """The directories and their values as bytes. start: offset of the first directory."""
        note = self.below.get(_EXIF, {}).get(_MAKER_NOTE)
        size = _table_size(self.main) + 12 * len(self.below)
        kept = range(0)
        if note and self.pinned is not None and self.pinned >= start + size:
            kept = range(self.pinned, self.pinned + len(note.data))
        end = start
        parts: list[tuple[int, bytes]] = []

        def reserve(size: int) -> int:
            nonlocal end
            at = end + end % 2
            if at < kept.stop and at + size > kept.start:
                at = kept.stop + kept.stop % 2
            end = at + size
            return at

        def add(values: dict[int, _Value], pointers: dict[int, int], at: int) -> None:
            table = struct.pack(self.order + "H", len(values) + len(pointers))
            for tag in sorted({*values, *pointers}):
                if tag in pointers:
                    table += struct.pack(self.order + "HHII", tag, 4, 1, pointers[tag])
                    continue
                value = values[tag]
                data = value.data
                if len(data) > 4:
                    place = kept.start if value is note and kept else reserve(len(data))
                    parts.append((place, data))
                    data = struct.pack(self.order + "I", place)
                head = struct.pack(self.order + "HHI", tag, value.kind, value.values)
                table += head + data.ljust(4, b"\0")
            parts.append((at, table + bytes(4)))

        at = reserve(size)
        places = {tag: reserve(_table_size(values)) for tag, values in self.below.items()}
        add(self.main, places, at)
        for tag, values in self.below.items():
            add(values, {}, places[tag])
        block = bytearray(max(end, kept.stop) - start)
        for place, data in parts:
            block[place - start : place - start + len(data)] = data
        return bytes(block)


def _table_size(values: dict[int, _Value]) -> int:
    return 2 + 12 * len(values) + 4


def _swap(value: _Value) -> bytes:
    size = SIZES[value.kind] // 2 if value.kind in {5, 10} else SIZES[value.kind]
    if size == 1:
        return value.data
    return np.frombuffer(value.data, f"u{size}").byteswap().tobytes()


class Exif:
    """The EXIF of a file, as far as it can be read: a directory of tags and those it points to."""

    def __init__(self, structure: Structure, directory: Directory) -> None:
        self._structure = structure
        self._main = directory
        self._details = self._below(directory, _EXIF)

    @classmethod
    def parse(cls, data: bytes | None) -> Exif | None:
        """Parse a TIFF structure, with or without PREFIX. None if it is not one."""
        try:
            structure = Structure(io.BytesIO((data or b"").removeprefix(PREFIX)))
            return cls(structure, structure.directory(structure.first))
        except DamagedError:
            return None

    @property
    def orientation(self) -> int | None:
        number = self._number(self._main, _ORIENTATION)
        return None if number is None else int(number)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Horizontal and vertical resolution, as stored."""
        x, y = (self._number(self._main, tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
        unit = self._number(self._main, _RESOLUTION_UNIT)
        per_unit = {2: 1.0, 3: 2.54}.get(2 if unit is None else int(unit))
        return (x * per_unit, y * per_unit) if per_unit and x and y else None

    @property
    def adobe_rgb(self) -> bool:
        """Whether the colours are Adobe RGB, which DCF 2.0 marks as R03."""
        if self._details is None:
            return False
        interoperability = self._below(self._details, _INTEROPERABILITY)
        entry = interoperability and interoperability.entries.get(_INTEROPERABILITY_INDEX)
        if entry and self._structure.raw(entry).startswith(b"R03"):
            return True
        return self._number(self._details, _COLOUR_SPACE) == 2

    def rewrite(self) -> tuple[bytes | None, list[str]]:
        """EXIF for the finished picture, and notes on what was left out.

        It has no tags that describe this file's pixels, and no copies of the photo, which would
        show the background. None if nothing is left.
        """
        below = [self._below(self._main, tag) for tag in (_EXIF, _GPS)]
        directories = [self._main, *filter(None, below)]
        size = sum(entry.size for one in directories for entry in one.entries.values())
        if size > self._structure.length:
            return None, ["EXIF left out: its values overlap"]
        notes: list[str] = []
        block = _Block(self._structure.order, self._collect(self._main, notes))
        for tag, directory in zip((_EXIF, _GPS), below, strict=True):
            if directory is not None:
                values = self._collect(directory, notes)
                block.below |= {tag: values} if values else {}
            elif tag in self._main.entries:
                notes.append("a damaged part of EXIF left out")
        block.pinned = self._find_maker_note()
        kept = block.to_bytes() if block.main or block.below else None
        return kept, list(dict.fromkeys(notes))

    def everything(self) -> _Block:
        """All tags, of EXIF that :meth:`rewrite` made."""
        block = _Block(self._structure.order, self._copy(self._main), {}, self._find_maker_note())
        for tag in (_EXIF, _GPS):
            block.main.pop(tag, None)
            directory = self._below(self._main, tag)
            if directory is not None:
                block.below[tag] = self._copy(directory)
        return block

    def _copy(self, directory: Directory) -> dict[int, _Value]:
        return {
            tag: _Value(entry.kind, entry.values, self._structure.raw(entry))
            for tag, entry in directory.entries.items()
        }

    def _collect(self, directory: Directory, notes: list[str]) -> dict[int, _Value]:
        values = {}
        if directory.odd:
            notes.append("damaged values of EXIF left out")
        for tag, entry in directory.entries.items():
            if tag in _OF_THE_FILE or tag in {_EXIF, _GPS} or entry.kind in _POINTERS:
                continue
            if tag in _PICTURES:
                notes.append("Photoshop's layers and thumbnails left out")
            elif tag >= 0x8000 and directory is self._main and entry.size > _MOST_UNKNOWN:
                notes.append(f"tag {tag} left out: {entry.size:,} bytes of an unknown kind")
            elif holds_picture(data := self._structure.raw(entry)):
                name = "the maker's note" if tag == _MAKER_NOTE else f"tag {tag} of EXIF"
                notes.append(f"{name} left out: it holds a copy of the photo")
            else:
                values[tag] = _Value(entry.kind, entry.values, data)
        return values

    def _find_maker_note(self) -> int | None:
        entry = self._details and self._details.entries.get(_MAKER_NOTE)
        return entry.at if entry and entry.at + entry.size < _MOST_PINNED else None

    def _below(self, directory: Directory, tag: int) -> Directory | None:
        at = self._number(directory, tag)
        try:
            return self._structure.directory(int(at)) if at else None
        except DamagedError:
            return None

    def _number(self, directory: Directory, tag: int) -> float | None:
        entry = directory.entries.get(tag)
        if entry is None or not entry.values:
            return None
        number: float = self._structure.numbers(entry, 1)[0]
        return number if math.isfinite(number) else None


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Add the resolution to EXIF that :meth:`Exif.rewrite` made (or to none)."""
    block = _load(exif)
    for tag, value in zip((_X_RESOLUTION, _Y_RESOLUTION), dpi, strict=True):
        data = struct.pack(block.order + "II", round(value * 1000), 1000)
        block.main[tag] = _Value(5, 1, data)
    block.main[_RESOLUTION_UNIT] = _Value(3, 1, struct.pack(block.order + "H", 2))  # per inch
    return block.to_bytes()


def without_maker_note(exif: bytes) -> bytes | None:
    """EXIF that :meth:`Exif.rewrite` made, without the maker's note, which is often its largest
    part. None if it has no maker's note.
    """
    block = _load(exif)
    note = block.below.get(_EXIF, {}).pop(_MAKER_NOTE, None)
    return block.to_bytes() if note else None


def add_to_tiff(picture: bytes, exif: bytes | None, xmp: bytes | None) -> list[bytes]:
    """A TIFF file with EXIF and XMP added to its first page, in pieces.

    picture: of one page, not a BigTIFF. exif: made by :meth:`Exif.rewrite`; without a maker's note
    if its byte order is not the picture's, because the byte order of a maker's note cannot be
    changed. The page's directory is written again at the end of the file; its own values take
    precedence.
    """
    structure = Structure(io.BytesIO(picture))
    own = Exif(structure, structure.directory(structure.first)).everything()
    block = _load(exif)
    if block.order != own.order:
        block.swap()
    block.main |= own.main
    block.pinned = None
    if xmp:
        block.main[_XMP] = _Value(1, len(xmp), xmp)
    start = len(picture) + len(picture) % 2
    link = picture[:4] + struct.pack(own.order + "I", start)
    return [link, picture[8:], bytes(start - len(picture)), block.lay_out(start)]


def _load(exif: bytes | None) -> _Block:
    parsed = Exif.parse(exif)
    return parsed.everything() if parsed else _Block(">")
