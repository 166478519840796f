"""Makes one stream of parts of another stream."""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the stream: offset and number of bytes."""

    at: int
    size: int


class Splice(io.RawIOBase):
    """Bytes and ranges of a stream, read as one stream. Reading moves the original one."""

    def __init__(self, stream: BinaryIO, pieces: Sequence[bytes | Span]) -> None:
        self._stream = stream
        self._pieces = [piece for piece in pieces if _size(piece)]
        self._starts = [0, *accumulate(map(_size, self._pieces))]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        number = bisect_right(self._starts, self._at) - 1
        if number >= len(self._pieces):
            return 0
        piece = self._pieces[number]
        within = self._at - self._starts[number]
        size = min(len(buffer), _size(piece) - within)
        if isinstance(piece, Span):
            self._stream.seek(piece.at + within)
            data = self._stream.read(size)
        else:
            data = piece[within : within + size]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def splice(stream: BinaryIO, pieces: Sequence[bytes | Span]) -> BinaryIO:
    """A buffered stream of the pieces, one after the other."""
    return io.BufferedReader(Splice(stream, pieces), 1 << 16)


def _size(piece: bytes | Span) -> int:
    return piece.size if isinstance(piece, Span) else len(piece)
