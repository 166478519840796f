"""Reads JPEG with libjpeg-turbo through simplejpeg, which reports the decoder's warnings.

Pillow uses the same decoder and is as fast, but hides its warnings: half a file with an end marker,
or a file with a hole in the middle, would pass as an intact photo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, _imaging

from bgx.image.ifd import DamagedError
from bgx.image.readers.pillow import PillowReader, open_by_pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgx.image.readers.base import Decoded

_COLOURS = {"L": "GRAY", "RGB": "RGBA", "CMYK": "CMYK"}
"""simplejpeg's names for how Pillow's modes are laid out in memory: RGB has four bytes a pixel."""

_END = b"\xff\xd9"
_TABLES, _START_OF_SCAN = 0xC4, 0xDA
_NOT_SEQUENTIAL = {0xC2, *range(0xC5, 0xD0)} - {0xCC}
"""Markers of frames (SOF) that are not sequential with Huffman coding."""

_FILL = 128
"""Value of samples for which the decoder had no data."""

_MOST_MISSING = 0.05
"""Largest share of a picture that may be missing at its end."""

_TRUNCATED = "Premature end of JPEG file"
_HARMLESS = ("Warning:", "Unknown Adobe", "Invalid SOS", "Inconsistent progression")
"""Beginnings of warnings (libjpeg's jerror.h) that concern headers, not pixels."""

_HOLE = 64
"""Length of a run of zeros that counts as a hole, bytes."""


class JpegReader:
    """See :class:`bgx.image.readers.base.Reader`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._image = open_by_pillow(stream, "JPEG")
        self._reader = PillowReader(self._image)
        self.size = self._image.size

    @property
    def orientation(self) -> int:
        return self._reader.orientation

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        self._stream.seek(0)
        data = self._stream.read()
        mode = self._image.mode
        _refuse_holes(data, mode)
        try:
            image = _decode(data, mode, strict=True, least=_reduce(self.size, least))
            decoded = self._reader.describe(image)
        except ValueError as error:
            decoded = self._salvage(data, str(error))
        return decoded

    def _salvage(self, data: bytes, complaint: str) -> Decoded:
        """Decode a file in which the decoder found a fault, if little of it is damaged.

        complaint: the decoder's warning. Raises DamagedError if too much or an unknown part is
        missing, and whatever Pillow raises.
        """
        mode = self._image.mode
        ended = False
        if complaint == _TRUNCATED:
            # Zeros at the end belong to the picture, or a download reserved space and broke off.
            ended = _complain(data + _END, mode) is None
            data = data if ended else data.rstrip(b"\0")
        try:
            image = _decode(data, mode, strict=False)
        except ValueError:
            # Not a warning but an error. Pillow supports a few more kinds.
            return self._reader.decode(None)
        decoded = self._reader.describe(image)
        if complaint == _TRUNCATED:
            if ended or _complain(data + _END, mode) is None:
                decoded.notes.append("the end marker is missing, but all pixels are there")
                return decoded
            # A truncated progressive picture is coarser everywhere, by an unknown amount.
            missing = 1.0 if "progressive" in self._image.info else _measure_missing(image)
            if missing > _MOST_MISSING:
                raise DamagedError("truncated: the picture's lower part is missing")
            decoded.notes.append("damaged: the picture's last rows are missing")
            decoded.damaged = True
        elif complaint.startswith(_HARMLESS):
            decoded.notes.append(f"the JPEG decoder says: {complaint}")
        elif _is_padded(data, mode):
            decoded.notes.append("padding before the file's end marker")
        else:
            raise DamagedError(complaint)
        return decoded


def check_jpeg(data: bytes, components: int) -> None:
    """Raise DamagedError if a JPEG inside another file is incomplete or damaged.

    components: 1, 3 or 4.
    """
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[components]
    complaint = _complain(data, mode)
    if complaint == _TRUNCATED:
        complaint = _complain(data + _END, mode)
    if complaint and not complaint.startswith(_HARMLESS):
        raise DamagedError(complaint)


def _complain(data: bytes, mode: str) -> str | None:
    """The decoder's first warning or error; None if there is none."""
    try:
        _decode(data, mode, strict=True)
    except ValueError as error:
        return str(error)
    return None


def _decode(
    data: bytes, mode: str, *, strict: bool, least: tuple[int, int] = (0, 0)
) -> Image.Image:
    """Decode a picture of this mode.

    least: width and height below which the picture is not reduced; 0 for full size. Raises
    ValueError with the decoder's error or, if strict, its first warning.
    """
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(
        data, _COLOURS[mode], strict=strict, min_width=least[0], min_height=least[1]
    )
    return _to_image(pixels, mode)


def _reduce(size: tuple[int, int], least: tuple[int, int] | None) -> tuple[int, int]:
    """An eighth, a quarter, a half or all of the size: the smallest that is not below ``least``."""
    if least is None:
        return 0, 0
    ratio = min(size[0] // least[0], size[1] // least[1])
    scale = next(scale for scale in (8, 4, 2, 1) if ratio >= scale or scale == 1)
    return -(-size[0] // scale), -(-size[1] // scale)


def _to_image(pixels: NDArray[np.uint8], mode: str) -> Image.Image:
    size = pixels.shape[1], pixels.shape[0]
    if mode == "RGB":
        # What Image.frombuffer() does for the modes of four bytes that it knows. A copy would take
        # half as long as decoding, and at 12 megapixels 36 MB.
        core = _imaging.map_buffer(pixels, size, "raw", 0, (mode, 0, 1))
        return Image.new(mode, (0, 0))._new(core)
    # In CMYK files, no ink is stored as 255: all programs that write such files do so.
    raw = "CMYK;I" if mode == "CMYK" else mode
    image = Image.frombuffer(mode, size, pixels, "raw", raw, 0, 1)
    image.readonly = 0  # nobody else has these pixels
    return image


def _measure_missing(image: Image.Image) -> float:
    """Share of rows at the end for which the decoder had no data."""
    fill = 255 - _FILL if image.mode == "CMYK" else _FILL
    filled = (np.asarray(image).reshape(image.height, -1) == fill).all(axis=1)
    given = np.flatnonzero(~filled)
    return 1 - (int(given[-1]) + 1) / len(filled) if len(given) else 1.0


def _is_padded(data: bytes, mode: str) -> bool:
    """Whether the picture is intact once repeated bytes in front of its end marker are removed."""
    scan = _segments(data)[-1][1]
    end = data.find(_END, scan)
    if end < 0:
        return False
    kept = data[:end].rstrip(data[end - 1 : end])
    # The last byte of the pixels may be the same as the padding.
    return any(_complain(kept + data[end - 1 : end] * more + _END, mode) is None for more in (0, 1))


def _refuse_holes(data: bytes, mode: str) -> None:
    """Raise DamagedError if the compressed data has a long run of zeros that is a hole in the file.

    The decoder may decode a hole without a warning. If the code of an unchanged, uniform block is
    all zeros, a plain background gives long runs of zeros too; otherwise they are a hole.
    """
    segments = _segments(data)
    kind, scan = segments[-1]
    hole = data.find(bytes(_HOLE), scan)
    if hole < 0 or kind != _START_OF_SCAN:
        return
    end = data.find(_END, scan)
    if not data[hole : None if end < 0 else end].strip(b"\0"):
        # At the end they are either padding or the rest of an aborted copy.
        if end < 0 or _is_padded(data, mode):
            return
        raise DamagedError("a hole of zeros at the end")
    if any(marker in _NOT_SEQUENTIAL for marker, _ in segments):
        return
    firsts = [first for marker, at in segments if marker == _TABLES for first in _firsts(data, at)]
    if any(firsts):
        raise DamagedError("a hole of zeros in the middle")


def _segments(data: bytes) -> list[tuple[int, int]]:
    """Marker and offset of each segment up to the first scan."""
    found = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        found.append((data[at + 1], at))
        if data[at + 1] == _START_OF_SCAN:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found or [(0, 0)]


def _firsts(data: bytes, at: int) -> list[int]:
    """The symbols whose Huffman code is all zeros, one per table (T.81, B.2.4.2)."""
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    firsts = []
    at += 4
    while at + 17 < end:
        firsts.append(data[at + 17])
        at += 17 + sum(data[at + 1 : at + 17])
    return firsts
