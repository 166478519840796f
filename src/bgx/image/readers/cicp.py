"""Makes ICC profiles for files that describe their colours by numbers instead of a profile.

AVIF, HEIC and PNG give primaries and transfer function as code points (ITU-T H.273); PNG, BMP and
cameras also have older ways. Everything after the readers uses ICC profiles only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bgx.image.readers.base import NotReadError

XY = tuple[float, float]

_D65, _C, _E, _DCI = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
_D50_XYZ = (0.9642, 1.0, 0.8249)  # ICC.1:2022, 6.3.4.3


@dataclass(frozen=True, slots=True)
class Primaries:
    """CIE 1931 chromaticities (x, y)."""

    red: XY
    green: XY
    blue: XY
    white: XY = _D65


_BT709 = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_PRIMARIES = {  # H.273, table 2
    1: _BT709,
    2: _BT709,  # unspecified
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: Primaries((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), _E),
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    12: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}

Curve = tuple[float, ...]
"""Parameters of ICC's parametricCurveType (ICC.1:2022, 10.18): g alone, or g, a, b, c, d."""

_SRGB: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES = {  # H.273, table 3
    1: _BT709_CURVE,
    2: _SRGB,  # unspecified
    4: (2.2,),
    5: (2.8,),
    6: _BT709_CURVE,
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: (1.0,),
    11: _BT709_CURVE,
    12: _BT709_CURVE,
    13: _SRGB,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
_HDR = {16: "PQ", 18: "HLG"}

_ALIKE = 0.002
"""Chromaticities and gammas that differ by less count as equal: writers round them differently."""

_ENCODING_GAMMA = 0.45455
"""Value of gAMA, the exponent of encoding, for sRGB."""


def profile_of_codes(primaries: int, transfer: int) -> bytes | None:
    """The ICC profile for code points of H.273; None for sRGB.

    Raises NotReadError for HDR and for unknown code points.
    """
    if transfer in _HDR:
        raise NotReadError(
            f"has HDR colours ({_HDR[transfer]}), which bgx does not read; save it as SDR, in sRGB "
            "or Display P3"
        )
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        raise NotReadError(
            f"has colours of an unknown kind (primaries {primaries}, transfer {transfer}); save it "
            "in sRGB or Display P3"
        )
    return _profile(_PRIMARIES[primaries], _CURVES[transfer])


def profile_of_gamma(encoding_gamma: float | None, primaries: Primaries | None) -> bytes | None:
    """The ICC profile for gAMA and cHRM of a PNG; None for sRGB, or where they describe nothing."""
    if primaries is not None and not _is_possible(primaries):
        primaries = None
    told = primaries or _BT709
    if encoding_gamma is None or not 0.1 <= encoding_gamma <= 2:
        # Without a curve the primaries alone describe nothing.
        return None
    curve: Curve = (1 / encoding_gamma,)
    if abs(encoding_gamma - _ENCODING_GAMMA) < 5 * _ALIKE:
        curve = _SRGB
    try:
        return _profile(_BT709 if _are_alike(told, _BT709) else told, curve)
    except struct.error:  # numbers too large for a profile
        return None


def adobe_rgb_profile() -> bytes:
    """An ICC profile for Adobe RGB (1998), which cameras mark in EXIF without embedding one."""
    return _make_profile(Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (563 / 256,))


def _are_alike(first: Primaries, second: Primaries) -> bool:
    return bool(np.abs(_points(first) - _points(second)).max() < _ALIKE)


def _points(primaries: Primaries) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    points = (primaries.red, primaries.green, primaries.blue, primaries.white)
    return np.array(points, np.float64)


def _is_possible(primaries: Primaries) -> bool:
    """Whether the primaries form a triangle, and no luminance is zero."""
    points = _points(primaries)
    sides = points[1] - points[0], points[2] - points[0]
    area = float(sides[0][0] * sides[1][1] - sides[0][1] * sides[1][0])
    return bool((points[:, 1] > 0).all()) and abs(area) > 1e-3


def _profile(primaries: Primaries, curve: Curve) -> bytes | None:
    """The ICC profile; None for sRGB."""
    if (primaries, curve) == (_BT709, _SRGB):
        return None
    return _make_profile(primaries, curve)


@lru_cache  # not without a limit: any file may have primaries of its own
def _make_profile(primaries: Primaries, curve: Curve) -> bytes:
    """Make a matrix profile after ICC.1:2010 (version 4.3)."""
    matrix, adaptation = _to_d50(primaries)
    parameters = b"".join(struct.pack(">i", round(value * 65536)) for value in curve)
    kind = {1: 0, 5: 3}[len(curve)]
    trc = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + parameters
    tags = {
        b"desc": _text("RGB colours of the photo"),
        b"cprt": _text("no rights reserved"),
        b"wtpt": _xyz(_D50_XYZ),
        b"chad": b"sf32\0\0\0\0" + _fixed(adaptation.ravel()),
        b"rXYZ": _xyz(matrix[:, 0]),
        b"gXYZ": _xyz(matrix[:, 1]),
        b"bXYZ": _xyz(matrix[:, 2]),
        b"rTRC": trc,
        b"gTRC": trc,
        b"bTRC": trc,
    }
    return _join(tags)


def _to_d50(primaries: Primaries) -> tuple[np.ndarray, np.ndarray]:
    """RGB to XYZ as seen under D50, and the adaptation in it (Bradford; ICC.1:2022, annex E)."""
    xyz = np.array([_to_xyz(*point) for point in _points(primaries)[:3]]).T
    white = np.array(_to_xyz(*primaries.white))
    own = xyz * np.linalg.solve(xyz, white)
    cones = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    gain = (cones @ np.array(_D50_XYZ)) / (cones @ white)
    adaptation = np.linalg.inv(cones) @ np.diag(gain) @ cones
    return adaptation @ own, adaptation


def _to_xyz(x: float, y: float) -> tuple[float, float, float]:
    # The blue of CIE XYZ itself has no lightness.
    return (x / y, 1.0, (1 - x - y) / y) if y else (x, y, 1 - x - y)


def _xyz(values: object) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _fixed(values: object) -> bytes:
    return b"".join(struct.pack(">i", round(float(v) * 65536)) for v in np.asarray(values))


def _text(text: str) -> bytes:
    """multiLocalizedUnicodeType with one English record."""
    data = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def _join(tags: dict[bytes, bytes]) -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    table, data = [], []
    for name, content in tags.items():
        if content not in places:  # the three curves share their data
            places[content] = offset
            padded = content + bytes(-len(content) % 4)
            data.append(padded)
            offset += len(padded)
        table.append(name + struct.pack(">II", places[content], len(content)))
    head = struct.pack(">I4sI", offset, bytes(4), 0x04300000) + b"mntrRGB XYZ "
    # A fixed date: equal pictures, equal bytes.
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += _fixed(_D50_XYZ) + bytes(48)
    return head + struct.pack(">I", len(tags)) + b"".join(table) + b"".join(data)
