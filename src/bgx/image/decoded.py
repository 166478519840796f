"""What a format's reader hands over: pixels as the file has them, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL import Image

    from bgx.image.exif import Exif


class NotReadError(Exception):
    """A kind of picture that bgx does not read. The message names the kind and the remedy."""


@dataclass(slots=True)
class Decoded:
    """A picture as stored, before it is turned upright and made RGB.

    image: any mode that :func:`bgx.image.rgb.to_rgb` takes; for a picture read reduced, smaller
    than the file's. alpha: mode L, where the image's mode has no place for it. orientation: EXIF's,
    1..8. dpi: horizontal, vertical, as stored, of the format's own field. icc: as the file has it,
    whether it fits or not. notes: what the report should say. damaged: some pixels are not the
    photo's.
    """

    image: Image.Image
    alpha: Image.Image | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    icc: bytes | None = None
    exif: Exif | None = None
    xmp: bytes | None = None
    notes: list[str] = field(default_factory=list)
    damaged: bool = False


class Reader(Protocol):
    """A picture whose header is read.

    size: width and height as stored. orientation: EXIF's, as far as the header tells.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def orientation(self) -> int: ...

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        """The pixels. least: where given, the image may be reduced to no less than this size.

        Raises NotReadError, and whatever a decoder raises.
        """
