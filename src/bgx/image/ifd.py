"""Reads the structure of TIFF (TIFF 6.0, section 2; BigTIFF): directories of tagged values.

EXIF has the same structure in every format. Nothing here depends on the meaning of tags.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4} | {
    16: 8,
    17: 8,
    18: 8,
    129: 1,  # UTF-8, EXIF 3.0
}
"""Bytes of one value of each type."""

_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"} | {
    16: "Q",
    17: "q",
    18: "Q",
}
_RATIONALS = {5: "I", 10: "i"}

_MOST_ENTRIES = 0xFFFF
_MOST_DIRECTORIES = 4096
_MOST_READ = 1 << 19
"""Directories and entries that are read of one file, at most: less than two seconds' work. Any
number of pointers can lead to the same directory."""


class DamagedError(ValueError):
    """The data is not a TIFF structure, or it has offsets beyond the end of the file."""


class Entry(NamedTuple):
    """One tag's values. kind: type, a key of SIZES. values: how many. at: offset of the first one's
    bytes."""

    tag: int
    kind: int
    values: int
    at: int

    @property
    def size(self) -> int:
        return self.values * SIZES[self.kind]


class Directory(NamedTuple):
    """A directory (IFD).

    at: its offset. entries: by tag. following: offset of the next directory, 0 after the last. odd:
    number of entries ignored because their type is unknown or their values are beyond the file.
    """

    at: int
    entries: dict[int, Entry]
    following: int
    odd: int = 0


class Structure:
    """Reads directories and values from a seekable stream.

    order: byte order, ``<`` or ``>``. big: whether it is a BigTIFF. Raises DamagedError if there is
    no TIFF header.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._read = 0
        self.length = stream.seek(0, 2)
        stream.seek(0)
        head = stream.read(16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order or len(head) < 8:
            raise DamagedError("no TIFF header")
        # Some writers mix up the byte order of the version; only its value counts.
        version = max(head[2], head[3])
        self.big = version == 43
        if version not in {42, 43} or (self.big and len(head) < 16):
            raise DamagedError("no TIFF header")
        self.first: int = (
            self._unpack("Q", head[8:16])[0] if self.big else (self._unpack("I", head[4:8])[0])
        )

    def directory(self, at: int) -> Directory:
        """The directory at an offset. Raises DamagedError; ValueError after _MOST_READ."""
        self._read += 1
        if self._read > _MOST_READ:
            raise ValueError("more directories than a picture has")
        count_size, entry_size, pointer = (8, 20, "Q") if self.big else (2, 12, "I")
        count = int.from_bytes(self.bytes_at(at, count_size), self._byteorder)
        if count > _MOST_ENTRIES:
            raise DamagedError("a directory with an impossible number of entries")
        self._read += count
        table = self.bytes_at(at + count_size, count * entry_size)
        entries: dict[int, Entry] = {}
        odd = 0
        inline = struct.calcsize(pointer)
        for number in range(count):
            start = number * entry_size
            tag, kind = self._unpack("HH", table[start : start + 4])
            (values,) = self._unpack(pointer, table[start + 4 : start + 4 + inline])
            place = start + 4 + inline
            if kind not in SIZES:
                odd += 1
                continue
            size = values * SIZES[kind]
            if size <= inline:
                where = at + count_size + place
            else:
                (where,) = self._unpack(pointer, table[place : place + inline])
            if where + size > self.length:
                odd += 1
                continue
            entries.setdefault(tag, Entry(tag, kind, values, where))
        end = at + count_size + len(table)
        try:
            (following,) = self._unpack(pointer, self.bytes_at(end, inline))
        except DamagedError:  # some writers leave it out after the last directory
            following = 0
        return Directory(at, entries, following, odd)

    def chain(self) -> Iterator[Directory]:
        """The first directory and those that follow it, up to a loop or damage.

        Raises DamagedError if not even the first can be read.
        """
        at, seen = self.first, set[int]()
        while at and at not in seen and len(seen) < _MOST_DIRECTORIES:
            try:
                directory = self.directory(at)
            except DamagedError:
                if not seen:
                    raise
                return
            seen.add(at)
            yield directory
            at = directory.following

    def bytes_at(self, at: int, size: int) -> bytes:
        """Read bytes at an offset. Raises DamagedError if the file is too short."""
        if at < 0 or at + size > self.length:
            raise DamagedError("truncated: a value lies beyond the end of the file")
        self._stream.seek(at)
        data = self._stream.read(size)
        if len(data) != size:
            raise DamagedError("truncated: a value lies beyond the end of the file")
        return data

    def raw(self, entry: Entry) -> bytes:
        """The values' bytes as stored. Raises DamagedError."""
        return self.bytes_at(entry.at, entry.size)

    def numbers(self, entry: Entry, most: int | None = None) -> tuple[Any, ...]:
        """The values; text and undefined bytes as numbers, rationals divided (x / 0 is 0).

        most: only that many, the first ones. Raises DamagedError.
        """
        if most is not None:
            entry = entry._replace(values=min(entry.values, most))
        data = self.raw(entry)
        if entry.kind in _RATIONALS:
            pairs = self._unpack(f"{2 * entry.values}{_RATIONALS[entry.kind]}", data)
            return tuple(a / b if b else 0.0 for a, b in zip(pairs[::2], pairs[1::2], strict=True))
        code = _CODES.get(entry.kind)
        return self._unpack(f"{entry.values}{code}", data) if code else tuple(data)

    @property
    def _byteorder(self) -> Any:
        return "little" if self.order == "<" else "big"

    def _unpack(self, form: str, data: bytes) -> tuple[Any, ...]:
        return struct.unpack(self.order + form, data)
