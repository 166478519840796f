"""AVIF and HEIC: pixels by their libraries, colours that are told by numbers from the boxes.

Pillow does not pass those on (ISO/IEC 14496-12 and 23008-12).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

from bgx.image.cicp import profile_of_codes
from bgx.image.pillow import PillowReader, open_by_pillow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bgx.image.decoded import Decoded

_MOST_META = 1 << 24
"""Bytes of a description; pixels stand elsewhere."""

_IN_TRACKS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_VIDEO_FIELDS = 78
"""Bytes of a sample entry before its own boxes (ISO/IEC 14496-12, 12.1.3)."""


Codes = tuple[int, int]
"""Primaries and transfer curve, code points of ITU-T H.273."""


class BoxReader:
    """See :class:`bgx.image.decoded.Reader`. Raises NotReadError for HDR."""

    def __init__(self, stream: BinaryIO, file_format: str) -> None:
        self._reader = PillowReader(open_by_pillow(stream, file_format))
        self._codes = _read_codes(stream)

    @property
    def size(self) -> tuple[int, int]:
        return self._reader.size

    @property
    def orientation(self) -> int:
        return self._reader.orientation

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        decoded = self._reader.decode(least)
        if decoded.icc is None and self._codes is not None:
            decoded.icc = profile_of_codes(*self._codes)
        return decoded


def _read_codes(stream: BinaryIO) -> Codes | None:
    """The colours that the photo's file names by numbers; None where it names none.

    Whatever is damaged counts as not there: the decoder says what is wrong with it.
    """
    try:
        for kind, body in _top_boxes(stream):
            found = _codes_of_item(body[4:]) if kind == b"meta" else _codes_of_tracks(body)
            if found:
                return found
    except (struct.error, IndexError, ValueError):
        pass
    return None


def _top_boxes(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    length = stream.seek(0, 2)
    while at + 8 <= length:
        stream.seek(at)
        size, kind = struct.unpack(">I4s", stream.read(8))
        start = at + 8
        if size == 1:
            (size,) = struct.unpack(">Q", stream.read(8))
            start += 8
        size = size or length - at
        if size < start - at:
            return
        if kind in {b"meta", b"moov"}:
            yield kind, stream.read(min(at + size - start, _MOST_META))
        at += size


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _codes_of_item(meta: bytes) -> Codes | None:
    """Of the primary item, else of any: a photo in tiles may describe the tiles alone."""
    boxes = dict(_boxes(meta))
    properties = dict(_boxes(boxes.get(b"iprp", b"")))
    all_of_them = list(_boxes(properties.get(b"ipco", b"")))
    primary = _primary_item(boxes.get(b"pitm", b""))
    own = [all_of_them[i - 1] for i in _associated(properties.get(b"ipma", b""), primary) if i]
    if any(kind == b"colr" for kind, _ in own):
        return _first_codes(own)
    return _first_codes(all_of_them)


def _first_codes(properties: list[tuple[bytes, bytes]]) -> Codes | None:
    for kind, body in properties:
        if kind == b"colr" and body[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", body, 4)
            return primaries, transfer
    return None


def _primary_item(pitm: bytes) -> int:
    return int.from_bytes(pitm[4:6] if pitm[:1] == b"\0" else pitm[4:8], "big")


def _associated(ipma: bytes, item: int) -> list[int]:
    """Numbers, from 1, of an item's properties."""
    if not ipma:
        return []
    wide_ids, wide_numbers = ipma[0] > 0, ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(count):
        id_size = 4 if wide_ids else 2
        found = int.from_bytes(ipma[at : at + id_size], "big")
        number = ipma[at + id_size]
        at += id_size + 1
        size = 2 if wide_numbers else 1
        if found == item:
            mask = 0x7FFF if wide_numbers else 0x7F
            places = range(at, at + number * size, size)
            return [int.from_bytes(ipma[p : p + size], "big") & mask for p in places]
        at += number * size
    return []


def _codes_of_tracks(data: bytes) -> Codes | None:
    """Of an image sequence: the description of its first track that has one."""
    for kind, body in _boxes(data):
        if kind in _IN_TRACKS:
            found = _codes_of_tracks(body)
        elif kind == b"stsd":
            entries = [fields[_VIDEO_FIELDS:] for _, fields in _boxes(body[8:])]
            found = next(filter(None, (_first_codes(list(_boxes(e))) for e in entries)), None)
        else:
            continue
        if found:
            return found
    return None
