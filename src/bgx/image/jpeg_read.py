"""JPEG: decoded by libjpeg-turbo through simplejpeg, which tells what the decoder complains of.

Pillow has the same decoder and is as fast, but keeps its warnings to itself: half a file with an
end marker, or a hole in the middle, would be a photo without a word.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from bgx.image.ifd import DamagedError
from bgx.image.pillow import PillowReader, open_by_pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgx.image.decoded import Decoded

_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""simplejpeg's names of Pillow's modes."""

_END = b"\xff\xd9"
_TABLES, _START_OF_SCAN = 0xC4, 0xDA
_NOT_SEQUENTIAL = {0xC2, *range(0xC5, 0xD0)} - {0xCC}
"""Starts of frames that are progressive, arithmetically coded, or neither."""

_FILL = 128
"""Value of every sample that the decoder had no data for."""

_MOST_MISSING = 0.05
"""Share of a picture that may be missing at its end."""

_TRUNCATED = "Premature end of JPEG file"
_HARMLESS = ("Warning:", "Unknown Adobe", "Invalid SOS", "Inconsistent progression")
"""Beginnings of complaints (libjpeg's jerror.h) about headers, not about the pixels."""
_HOLE = 64
"""Zeros that are too many."""

_MOST_KEPT = 1 << 26
"""Bytes of the largest picture whose memory serves the next one."""


class JpegReader:
    """See :class:`bgx.image.decoded.Reader`."""

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
        if decoded.icc is None and mode == "RGB" and decoded.exif and decoded.exif.adobe_rgb:
            from bgx.image.cicp import adobe_rgb_profile

            decoded.icc = adobe_rgb_profile()
        return decoded

    def _salvage(self, data: bytes, complaint: str) -> Decoded:
        """What can be had of a file that the decoder complains of.

        Raises DamagedError where too much is missing or nobody knows what, and what Pillow raises.
        """
        mode = self._image.mode
        if complaint == _TRUNCATED:
            data = data.rstrip(b"\0")  # reserved for what never came
        try:
            image = _decode(data, mode, strict=False)
        except ValueError:
            # No complaint but a refusal. Pillow's decoder knows some kinds more.
            return self._reader.decode(None)
        decoded = self._reader.describe(image)
        if complaint == _TRUNCATED:
            if _complain(data + _END, mode) is None:
                decoded.notes.append("the file's end marker is missing, behind all of its pixels")
                return decoded
            # Of a progressive picture, all of it is coarser than it was, nobody knows by how much.
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
    """Raises DamagedError where a JPEG inside another file is not whole.

    components: 1, 3 or 4.
    """
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[components]
    complaint = _complain(data, mode)
    if complaint == _TRUNCATED:
        complaint = _complain(data + _END, mode)
    if complaint and not complaint.startswith(_HARMLESS):
        raise DamagedError(complaint)


def _complain(data: bytes, mode: str) -> str | None:
    """What the decoder complains of; None where it does not."""
    try:
        _decode(data, mode, strict=True)
    except ValueError as error:
        return str(error)
    return None


def _decode(
    data: bytes, mode: str, *, strict: bool, least: tuple[int, int] = (0, 0)
) -> Image.Image:
    """A picture of that mode.

    least: width and height that the picture is not reduced below; 0 for its own. Raises ValueError
    with the decoder's first complaint, if strict, or with what stopped it.
    """
    import simplejpeg

    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    size = height * width * len(mode)
    buffer = _take_memory(size)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            _COLOURS[mode],
            strict=strict,
            min_width=least[0],
            min_height=least[1],
            buffer=buffer,
        )
        return _to_image(pixels, mode)
    finally:
        if size <= _MOST_KEPT:
            _kept.append(buffer)


_kept: deque[NDArray[np.uint8]] = deque(maxlen=1)
"""Memory for the next picture: from the system it comes page by page, which takes as long as a
third of decoding. One, since pictures are rarely decoded at the same moment."""


def _take_memory(size: int) -> NDArray[np.uint8]:
    try:
        buffer = _kept.pop()
    except IndexError:
        buffer = np.empty(0, np.uint8)
    return buffer if len(buffer) >= size else np.empty(size, np.uint8)


def _reduce(size: tuple[int, int], least: tuple[int, int] | None) -> tuple[int, int]:
    """The size at an eighth, a quarter, a half or all of it, whichever is just above ``least``."""
    if least is None:
        return 0, 0
    ratio = min(size[0] // least[0], size[1] // least[1])
    scale = next(scale for scale in (8, 4, 2, 1) if ratio >= scale or scale == 1)
    return -(-size[0] // scale), -(-size[1] // scale)


def _to_image(pixels: NDArray[np.uint8], mode: str) -> Image.Image:
    size = pixels.shape[1], pixels.shape[0]
    # As all programs do that write such files: no ink is 255.
    raw = "CMYK;I" if mode == "CMYK" else mode
    image = Image.frombuffer(mode, size, pixels, "raw", raw, 0, 1)
    return image.copy() if image.readonly else image


def _measure_missing(image: Image.Image) -> float:
    """The share of rows at the end that the decoder had no data for."""
    fill = 255 - _FILL if image.mode == "CMYK" else _FILL
    filled = (np.asarray(image).reshape(image.height, -1) == fill).all(axis=1)
    given = np.flatnonzero(~filled)
    return 1 - (int(given[-1]) + 1) / len(filled) if len(given) else 1.0


def _is_padded(data: bytes, mode: str) -> bool:
    """Whether the picture is whole without the one byte that is repeated before its end marker."""
    scan = _segments(data)[-1][1]
    end = data.find(_END, scan)
    if end < 0:
        return False
    kept = data[:end].rstrip(data[end - 1 : end])
    # The last byte of the pixels may be the same as the padding.
    return any(_complain(kept + data[end - 1 : end] * more + _END, mode) is None for more in (0, 1))


def _refuse_holes(data: bytes, mode: str) -> None:
    """Raises DamagedError for a long run of zeros that no picture can have.

    The decoder makes something of any bits, and now and then it comes out even. Where a zero is the
    code of an unchanged, plain block, a white background is made of zeros; where it is not, they
    are a hole.
    """
    segments = _segments(data)
    kind, scan = segments[-1]
    hole = data.find(bytes(_HOLE), scan)
    if hole < 0 or kind != _START_OF_SCAN:
        return
    end = data.find(_END, scan)
    if not data[hole : None if end < 0 else end].strip(b"\0"):
        # At the end: either padding behind the pixels or what a copy that broke off left.
        if end < 0 or _is_padded(data, mode):
            return
        raise DamagedError("a hole of zeros at the end")
    if any(marker in _NOT_SEQUENTIAL for marker, _ in segments):
        return
    firsts = [first for marker, at in segments if marker == _TABLES for first in _firsts(data, at)]
    if any(firsts):
        raise DamagedError("a hole of zeros in the middle")


def _segments(data: bytes) -> list[tuple[int, int]]:
    """Marker and place of each segment up to the first scan; thumbnails have scans of their own."""
    found = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        found.append((data[at + 1], at))
        if data[at + 1] == _START_OF_SCAN:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found or [(0, 0)]


def _firsts(data: bytes, at: int) -> list[int]:
    """The symbols that zeros stand for in a segment's Huffman tables (T.81, B.2.4.2)."""
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    firsts = []
    at += 4
    while at + 17 < end:
        firsts.append(data[at + 17])
        at += 17 + sum(data[at + 1 : at + 17])
    return firsts
