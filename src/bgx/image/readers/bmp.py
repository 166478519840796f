"""Reads BMP: 16- and 32-bit pixels here, all others with Pillow; also colour profiles.

Pillow knows only some of the channel masks, and uses an alpha channel even if it is all 0, as most
writers leave it. The structures are those of Windows' wingdi.h (BITMAPINFOHEADER, BITMAPV4HEADER,
BITMAPV5HEADER).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from bgx.image.ifd import DamagedError
from bgx.image.readers.base import Decoded, NotReadError
from bgx.image.readers.cicp import Primaries, profile_of_gamma
from bgx.image.readers.pillow import PillowReader, open_by_pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE_HEADER = 14
_CORE_HEADER = 12
_PLAIN, _BITFIELDS, _ALPHA_BITFIELDS = 0, 3, 6
"""Values of the field biCompression."""

_MASKS = {16: (0x7C00, 0x03E0, 0x001F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
"""Masks of red, green, blue and alpha for files without masks."""

_MASKS_AT = 40
"""Offset of the masks in the second header; in older files they follow that header."""

_COLOURS_AT, _POINTS_AT, _GAMMA_AT, _PROFILE_AT = 56, 60, 96, 112
_V4_HEADER, _V5_HEADER = 108, 124
_CALIBRATED, _EMBEDDED = 0, int.from_bytes(b"MBED", "big")

_ROWS_AT_ONCE = 256


class BmpReader:
    """See :class:`bgx.image.readers.base.Reader`."""

    orientation = 1

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        head = _read(stream, 0, _FILE_HEADER + _V5_HEADER + 16)
        (self._pixels_at, size) = struct.unpack_from("<II", head, 10)
        self._header = head[_FILE_HEADER : _FILE_HEADER + size]
        self._behind = head[_FILE_HEADER + size :]
        self._masks: tuple[int, ...] | None = None
        self._other: PillowReader | None = None
        if size == _CORE_HEADER or not self._has_masks():
            self._other = PillowReader(open_by_pillow(stream, "BMP"))
            self.size = self._other.size
        else:
            width, height = struct.unpack_from("<ii", self._header, 4)
            self._upside_down = height > 0
            self.size = width, abs(height)
            if width <= 0:
                raise DamagedError("a width below 1")

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        decoded = self._other.decode(least) if self._other else self._decode_by_masks()
        decoded.icc = self._read_profile()
        return decoded

    def _has_masks(self) -> bool:
        bits, compression = struct.unpack_from("<HI", self._header, 14)
        if bits not in _MASKS or compression not in {_PLAIN, _BITFIELDS, _ALPHA_BITFIELDS}:
            return False
        self._bits = bits
        self._masks = _MASKS[bits]
        if compression != _PLAIN:
            count = 4 if compression == _ALPHA_BITFIELDS or len(self._header) >= 56 else 3
            where = self._header[_MASKS_AT:] if len(self._header) > _MASKS_AT else self._behind
            masks = struct.unpack_from(f"<{count}I", where)
            self._masks = (*masks, 0)[:4] if any(masks) else (*_MASKS[bits][:3], 0xFF000000)
        return True

    def _decode_by_masks(self) -> Decoded:
        width, height = self.size
        stride = -(-width * self._bits // 32) * 4
        data = _read(self._stream, self._pixels_at, stride * height)
        if len(data) < stride * height:
            raise DamagedError("truncated: fewer pixels than the header says")
        kind = f"<u{self._bits // 8}"
        rows = np.frombuffer(data, kind).reshape(height, -1)[:, :width]
        if self._upside_down:
            rows = rows[::-1]
        masks = self._masks or ()
        picture = np.empty((height, width, 3), np.uint8)
        for number, mask in enumerate(masks[:3]):
            picture[..., number] = _take(rows, mask)
        decoded = Decoded(Image.fromarray(picture), dpi=self._read_dpi())
        if masks[3]:
            alpha = _take(rows, masks[3])
            if alpha.any():
                decoded.alpha = Image.fromarray(alpha)
            else:
                decoded.notes.append("alpha ignored: it is 0 everywhere")
        return decoded

    def _read_dpi(self) -> tuple[float, float] | None:
        x, y = struct.unpack_from("<ii", self._header, 24)
        return (x * 0.0254, y * 0.0254) if x > 0 and y > 0 else None

    def _read_profile(self) -> bytes | None:
        header = self._header
        if len(header) < _V4_HEADER:
            return None
        (space,) = struct.unpack_from("<I", header, _COLOURS_AT)
        if space == _EMBEDDED and len(header) >= _V5_HEADER:
            at, size = struct.unpack_from("<II", header, _PROFILE_AT)
            return _read(self._stream, _FILE_HEADER + at, size)
        return _read_calibration(header) if space == _CALIBRATED else None


def _read(stream: BinaryIO, at: int, size: int) -> bytes:
    stream.seek(at)
    return stream.read(size)


def _take(rows: NDArray[Any], mask: int) -> NDArray[np.uint8]:
    """Extract one channel from packed pixels, as 0..255."""
    if not mask:
        return np.zeros(rows.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    if most & (most + 1):
        raise NotReadError("is a BMP whose masks have gaps; save it as PNG")
    values = np.empty(rows.shape, np.uint8)
    for top in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[top : top + _ROWS_AT_ONCE] >> rows.dtype.type(shift) & rows.dtype.type(most)
        if most != 255:
            part = (part.astype(np.float64) * (255 / most) + 0.5).astype(np.uint8)
        values[top : top + _ROWS_AT_ONCE] = part
    return values


def _read_calibration(header: bytes) -> bytes | None:
    """A profile made from the header's primaries and gammas; None if they are empty or sRGB."""
    points = np.array(struct.unpack_from("<9i", header, _POINTS_AT)).reshape(3, 3) / (1 << 30)
    gammas = [value / 65536 for value in struct.unpack_from("<3I", header, _GAMMA_AT)]
    sums = points.sum(axis=1)
    if not all(gammas) or max(gammas) - min(gammas) > 0.01 or not (sums > 0).all():
        return None
    white = points.sum(axis=0)
    red, green, blue = (points[:, :2] / sums[:, None]).tolist()
    primaries = Primaries(tuple(red), tuple(green), tuple(blue), tuple(white[:2] / white.sum()))
    return profile_of_gamma(1 / gammas[0], primaries)
