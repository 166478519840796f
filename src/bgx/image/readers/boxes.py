"""Reads AVIF and HEIC: Pillow and pillow-heif decode the pixels, the rest is read from the boxes.

That is: colours given as code points, the original EXIF, and holes in the compressed data (ISO/IEC
14496-12 and 23008-12).
"""

from __future__ import annotations

import errno
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from PIL import AvifImagePlugin

from bgx.image.exif import Exif
from bgx.image.readers.cicp import profile_of_codes
from bgx.image.readers.pillow import PillowReader, holds_hole, note_hole, open_by_pillow
from bgx.threads import is_refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from bgx.image.readers.base import Decoded

_MOST_META = 1 << 24
"""Most bytes that are read of a box of descriptions, which holds no pixels."""

_MOST_EXIF = 1 << 26

_IN_A_TRACK = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")
"""Boxes on the way to the sample entries of a movie's tracks, each in the one before."""

_VIDEO_FIELDS = 78
"""Bytes of a sample entry in front of its boxes (ISO/IEC 14496-12, 12.1.3)."""

_CODED = {b"av01", b"hvc1"}
"""Items that are compressed pictures, or tiles of one."""

_one_thread = threading.Lock()
"""Held while Pillow's setting for the threads of a decoder is changed."""

Codes = tuple[int, int]
"""Primaries and transfer curve, code points of ITU-T H.273."""

_UNSPECIFIED: Codes = (2, 2)

Span = tuple[int, int]
"""Offset and number of bytes in the file."""


@dataclass(slots=True)
class _Description:
    """codes: colours of the photo. exif, coded: places of EXIF and of compressed pictures."""

    codes: Codes | None = None
    exif: Span | None = None
    coded: set[Span] = field(default_factory=set)


class BoxReader(PillowReader):
    """See :class:`bgx.image.readers.base.Reader`. Raises NotReadError for HDR."""

    def __init__(self, stream: BinaryIO, file_format: str) -> None:
        image = open_by_pillow(stream, file_format)
        super().__init__(image)
        self._stream = stream
        self._description = _read_description(stream)
        codes = None if image.info.get("icc_profile") else self._description.codes
        self._icc = profile_of_codes(*codes) if codes else None

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        try:
            self._image.load()
        except Exception as error:  # noqa: BLE001 - decoders raise nearly anything
            self._load_again(error)
        decoded = super().decode(least)
        decoded.icc = decoded.icc or self._icc
        decoded.told = self._description.codes not in {None, _UNSPECIFIED}
        # Pillow rewrites EXIF if its orientation is wrong, and loses letters that are not ASCII.
        decoded.exif = self._read_exif() or decoded.exif
        if self._holds_hole():
            note_hole(decoded)
        return decoded

    def _load_again(self, error: Exception) -> None:
        """Decode on one thread: the error may mean that the system refuses others."""
        if self._image.format == "AVIF":
            self._image = _open_on_one_thread(self._stream)
        elif is_refused():
            # The decoder of HEIC needs one.
            reason = "the system refuses more threads; raise the limit on processes"
            raise OSError(errno.EAGAIN, reason) from error
        else:
            raise error

    def _holds_hole(self) -> bool:
        spans = self._description.coded
        # Pictures that are larger together than the file overlap: they are not worth reading.
        return sum(size for _, size in spans) <= self._stream.seek(0, 2) and any(
            holds_hole(self._read(span)) for span in spans
        )

    def _read(self, span: Span) -> bytes:
        self._stream.seek(span[0])
        return self._stream.read(span[1])

    def _read_exif(self) -> Exif | None:
        span = self._description.exif
        if span is None or span[1] > _MOST_EXIF:
            return None
        data = self._read(span)
        # ISO/IEC 23008-12, A.2.1: the offset of the TIFF structure comes first.
        return Exif.parse(data[4 + int.from_bytes(data[:4], "big") :])


def _open_on_one_thread(stream: BinaryIO) -> Image.Image:
    """An AVIF whose decoder starts no thread."""
    stream.seek(0)
    with _one_thread:
        usual = AvifImagePlugin.DEFAULT_MAX_THREADS
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        try:
            return open_by_pillow(stream, "AVIF")
        finally:
            AvifImagePlugin.DEFAULT_MAX_THREADS = usual


def _read_description(stream: BinaryIO) -> _Description:
    """Read the boxes. Damaged ones are ignored, because the decoder reports damage."""
    description = _Description()
    try:
        for kind, body in _top_boxes(stream):
            if kind == b"meta":
                _read_items(body[4:], description)
            else:
                description.codes = description.codes or _codes_of_tracks(body)
    except (struct.error, IndexError, ValueError):
        pass
    return description


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


def _read_items(meta: bytes, description: _Description) -> None:
    boxes = dict(_boxes(meta))
    kinds = _item_kinds(boxes.get(b"iinf", b""))
    places = _item_places(boxes.get(b"iloc", b""))
    description.exif = next(
        (places[i] for i, k in kinds.items() if k == b"Exif" and i in places), None
    )
    description.coded = {places[i] for i, k in kinds.items() if k in _CODED and i in places}
    # Colours of the primary item, else of any: in a tiled photo only the tiles may have them.
    properties = dict(_boxes(boxes.get(b"iprp", b"")))
    all_of_them = list(_boxes(properties.get(b"ipco", b"")))
    primary = _primary_item(boxes.get(b"pitm", b""))
    own = [all_of_them[i - 1] for i in _associated(properties.get(b"ipma", b""), primary) if i]
    described = any(kind == b"colr" for kind, _ in own)
    description.codes = _first_codes(own if described else all_of_them)


def _first_codes(properties: list[tuple[bytes, bytes]]) -> Codes | None:
    for kind, body in properties:
        if kind == b"colr" and body[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", body, 4)
            return primaries, transfer
    return None


def _primary_item(pitm: bytes) -> int:
    return int.from_bytes(pitm[4:6] if pitm[:1] == b"\0" else pitm[4:8], "big")


def _item_kinds(iinf: bytes) -> dict[int, bytes]:
    """Types of the items, by number."""
    kinds = {}
    for _, entry in _boxes(iinf[6 if iinf[:1] == b"\0" else 8 :]):
        if entry[0] == 2:
            kinds[int.from_bytes(entry[4:6], "big")] = entry[8:12]
        elif entry[0] == 3:
            kinds[int.from_bytes(entry[4:8], "big")] = entry[10:14]
    return kinds


def _item_places(iloc: bytes) -> dict[int, Span]:
    """Places of the items that are one continuous range of the file.

    Raises ValueError if the box ends too early.
    """
    if not iloc:
        return {}
    version = iloc[0]
    sizes = iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4, iloc[5] & 15 if version else 0
    offset_size, length_size, base_size, index_size = sizes
    at = 6
    id_size = 4 if version == 2 else 2

    def take(size: int) -> int:
        nonlocal at
        at += size
        if at > len(iloc):  # it may announce four thousand million items
            raise ValueError("truncated")
        return int.from_bytes(iloc[at - size : at], "big")

    places = {}
    for _ in range(take(id_size)):
        item = take(id_size)
        method = take(2) & 15 if version else 0
        take(2)  # which file
        base = take(base_size)
        extents = take(2)
        if extents != 1:
            at += extents * (index_size + offset_size + length_size)
            continue
        take(index_size)
        place = base + take(offset_size), take(length_size)
        if method == 0:
            places[item] = place
    return places


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


def _codes_of_tracks(moov: bytes) -> Codes | None:
    """The colours of an image sequence: those of its first track that has any."""
    bodies = [moov]
    for wanted in _IN_A_TRACK:
        bodies = [inner for body in bodies for kind, inner in _boxes(body) if kind == wanted]
    entries = [entry[_VIDEO_FIELDS:] for stsd in bodies for _, entry in _boxes(stsd[8:])]
    return next(filter(None, (_first_codes(list(_boxes(entry))) for entry in entries)), None)
