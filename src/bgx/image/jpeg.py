"""JPEG files whose pure white is still pure white after decoding.

JPEG's rounding spreads over blocks of 8 x 8 pixels: beside a subject's edge, a background of
pure white comes back as 250 to 254, at quality 100 still as 254, and marketplaces refuse it. A
decoder clips values above 255, so white is stored here as far more than 255, and rounding no longer
shows. The encoder cannot take more than 255 either; hence the contrast is lowered before encoding,
and the quantisation tables in the file are raised by the same ratio, which restores the contrast on
decoding.

The components are R, G and B, not Y, Cb and Cr, because chroma has no upper end to be clipped at.
Decoders know both kinds (the Adobe marker tells them apart); the file is about twice as large.
"""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOWERED, _RAISED = 2, 3
"""Contrast is multiplied by their ratio about the middle, 128: white is stored as 318."""

_LOWER = [round(128 + (value - 128) * _LOWERED / _RAISED) for value in range(256)]

_START_OF_SCAN = 0xDA
_QUANTISATION_TABLES = 0xDB
_TABLE_BYTES = 64


def encode_white_jpeg(image: Image.Image, quality: int, **options: Any) -> bytes:
    """Encode mode RGB so that each pixel that is exactly white is so again after decoding.

    quality: 1..100; below 80 a white pixel amid strong contrasts may miss it. options: Pillow's for
    JPEG files. ``dpi`` must not be among them: the JFIF marker that stores it says that components
    are Y, Cb and Cr.
    """
    lowered = image.point(_LOWER * 3)
    lowered.paste((255, 255, 255), mask=_find_white(image))
    steps = [max(1, round(step / _RAISED)) for step in _luminance_table(quality)]
    stream = io.BytesIO()
    encoding = {"keep_rgb": True, "subsampling": 0}
    tables = [[step * _LOWERED for step in steps]]
    lowered.save(stream, format="JPEG", qtables=tables, **(options | encoding))
    data = bytearray(stream.getvalue())
    for start in _find_tables(data):
        for index in range(start, start + _TABLE_BYTES):
            data[index] = data[index] // _LOWERED * _RAISED
    return bytes(data)


def _find_white(image: Image.Image) -> Image.Image:
    """Mode 1: the pixels that are (255, 255, 255)."""
    white = (np.asarray(image) == 255).all(axis=2)
    return Image.fromarray(white)


@cache
def _luminance_table(quality: int) -> tuple[int, ...]:
    """The encoder's own table for this quality, limited so that raised values fit a byte."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, format="JPEG", quality=quality)
    with Image.open(stream) as opened:
        table: dict[int, list[int]] = opened.quantization  # type: ignore[attr-defined]
    return tuple(min(step, 255 - 255 % _RAISED) for step in table[0])


def _find_tables(data: bytearray) -> Iterator[int]:
    """Offsets of the 64 bytes of each quantisation table (ITU-T T.81, B.2.4.1)."""
    marker = 2
    while data[marker + 1] != _START_OF_SCAN:
        end = marker + 2 + int.from_bytes(data[marker + 2 : marker + 4], "big")
        if data[marker + 1] == _QUANTISATION_TABLES:
            yield from range(marker + 5, end, 1 + _TABLE_BYTES)
        marker = end
