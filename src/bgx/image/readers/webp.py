"""Reads WebP: Pillow decodes the pixels; holes in the file, which libwebp ignores, are detected."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from bgx.image.readers.pillow import PillowReader, holds_hole, note_hole, open_by_pillow

if TYPE_CHECKING:
    from bgx.image.readers.base import Decoded

_PIXELS = {b"VP8 ", b"VP8L"}
_FILE_HEADER = 12


class WebpReader(PillowReader):
    """See :class:`bgx.image.readers.base.Reader`."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(open_by_pillow(stream, "WEBP"))
        self._stream = stream

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        decoded = super().decode(least)
        if holds_hole(self._find_pixels()):
            note_hole(decoded)
        return decoded

    def _find_pixels(self) -> bytes:
        """The compressed pixels; empty for an animation, whose frames are in other chunks."""
        at = _FILE_HEADER
        while True:
            self._stream.seek(at)
            head = self._stream.read(8)
            if len(head) < 8:
                return b""
            size = int.from_bytes(head[4:], "little")
            if head[:4] in _PIXELS:
                return self._stream.read(size)
            at += 8 + size + size % 2
