"""Reads GIF: if the first frame does not fill the screen, the rest gets the background colour.

Pillow uses the palette's first colour there, whatever it is (see GIF89a, section 18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from bgx.image.readers.pillow import PillowReader, open_by_pillow

if TYPE_CHECKING:
    from bgx.image.readers.base import Decoded

_HEADER = 13
_HAS_PALETTE, _PALETTE_BITS = 0x80, 0x07


class GifReader:
    """See :class:`bgx.image.readers.base.Reader`."""

    orientation = 1

    def __init__(self, stream: BinaryIO) -> None:
        self._image = open_by_pillow(stream, "GIF")
        self._reader = PillowReader(self._image)
        self.size = self._image.size
        tiles = self._image.tile  # type: ignore[attr-defined]
        self._frame = tiles[0].extents if tiles else None
        self._background = _read_background(stream)

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        decoded = self._reader.decode(least)
        if self._frame in {None, (0, 0, *self.size)} or "transparency" in self._image.info:
            return decoded
        canvas = Image.new("RGB", self.size, self._background)
        canvas.paste(decoded.image.convert("RGB").crop(self._frame), self._frame)
        decoded.image = canvas
        return decoded


def _read_background(stream: BinaryIO) -> tuple[int, ...]:
    """The screen's background colour; black if there is no palette."""
    stream.seek(0)
    head = stream.read(_HEADER + 3 * 256)
    flags, index = head[10], head[11]
    if not flags & _HAS_PALETTE or index >= 2 << (flags & _PALETTE_BITS):
        return 0, 0, 0
    return tuple(head[_HEADER + 3 * index : _HEADER + 3 * index + 3])
