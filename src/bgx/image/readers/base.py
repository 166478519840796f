"""The interface of the readers of all formats: the pixels as stored, and the file's metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL import Image

    from bgx.image.exif import Exif


class NotReadError(Exception):
    """A kind of picture that bgx cannot read. The message names the kind and the remedy."""


@dataclass(slots=True)
class Decoded:
    """A picture as stored, before it is turned upright and made RGB.

    image: any mode that :func:`bgx.image.rgb.to_rgb` takes; smaller than the stored picture if it
    was decoded at a reduced size. alpha: mode L, if the image's mode has no alpha. orientation: of
    EXIF, 1..8. dpi: horizontal, vertical, from the format's own field. icc: as stored, not checked.
    told: the format's own fields say what the colours are, be it sRGB. notes: remarks for the
    report. damaged: some pixels are missing or wrong.
    """

    image: Image.Image
    alpha: Image.Image | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    icc: bytes | None = None
    told: bool = False
    exif: Exif | None = None
    xmp: bytes | None = None
    notes: list[str] = field(default_factory=list)
    damaged: bool = False


class Reader(Protocol):
    """A picture whose header has been read.

    size: width and height as stored. orientation: of EXIF, if the header has it.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def orientation(self) -> int: ...

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        """Decode the picture.

        least: if given, the image may be decoded at a reduced size, but not below this one. Raises
        NotReadError, and whatever a decoder raises.
        """
