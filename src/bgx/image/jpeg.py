"""JPEG that keeps its word: white that stays white, or quality 100 that stays within a level.

White. JPEG's rounding spreads over blocks of 8 x 8 pixels: beside a subject's edge, a background of
pure white comes back as 250 to 254, at quality 100 still as 254, and marketplaces refuse it. What
goes beyond 255 in a decoder is clipped, so white is stored here as far more than 255 and rounding
no longer shows. An encoder takes no more than 255 either; hence the contrast is lowered before it
quantises, and its quantisation tables are raised in the file by the same ratio, which gives the
contrast back on decoding.

Quality 100. Coefficients are rounded all the same, and Y, Cb and Cr before them, which costs up to
five levels. Of R, G and B, some samples in a million are off by two. Their blocks are tried with a
few samples moved by a level, at random: a block is coded by itself, and one of some dozen rounds to
what is wanted.

The components of both are R, G and B, not Y, Cb and Cr; chroma has no end to be clipped at either.
Decoders know both kinds (the Adobe marker tells them apart); the file is about twice as large.
"""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bgx.image.tiles import split_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_LOWERED, _RAISED = 2, 3
"""Contrast is multiplied by their ratio about the middle, 128: white is stored as 318."""

_FINEST: dict[str, Any] = {"quality": 100, "keep_rgb": True, "subsampling": 0}

_BLOCK = 8
"""Pixels a side that are coded together, and apart from all others."""

_MOVES = 32
"""Tried a block."""

_FEW = (0.015, 0.97, 0.015)
"""Shares of a block's samples that a try moves down, leaves and moves up."""

_AT_ONCE = 1024
"""Blocks tried together."""

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


def encode_exact_jpeg(image: Image.Image, **options: Any) -> bytes:
    """Encode mode RGB at quality 100, every sample within one level after decoding.

    options: as for encode_white_jpeg. Blocks of nothing but black and white may be off by more:
    there is no room to move in.
    """
    data = _encode_finest(image, **options)
    moved: Image.Image | None = None
    with Image.open(io.BytesIO(data)) as decoded:
        for box in split_rows((0, 0, *image.size)):
            wanted, got = (np.asarray(each.crop(box)) for each in (image, decoded))
            off = np.maximum(wanted, got) - np.minimum(wanted, got) > 1
            if off.any():
                moved = moved or image.copy()
                moved.paste(Image.fromarray(_move_blocks(wanted, off.any(axis=2))), box)
    return _encode_finest(moved, **options) if moved else data


def _encode_finest(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="JPEG", **(options | _FINEST))
    return stream.getvalue()


def _move_blocks(wanted: NDArray[np.uint8], off: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What an encoder should be given for the blocks that have a pixel that is off.

    wanted: [height, width, 3], its blocks those of the file. off: [height, width].
    """
    pixels = wanted.copy()
    moves = np.random.default_rng(0).choice((-1, 0, 1), (_MOVES, _BLOCK, _BLOCK, 3), p=_FEW)
    blocks = np.unique(np.argwhere(off) // _BLOCK * _BLOCK, axis=0)
    for some in np.array_split(blocks, -(-len(blocks) // _AT_ONCE)):
        # Beyond the picture an encoder repeats its last pixels.
        rows, columns = (
            np.minimum(first[:, None] + np.arange(_BLOCK), side - 1)
            for first, side in zip(some.T, off.shape, strict=True)
        )
        at = rows[:, :, None], columns[:, None, :]
        within = tuple(place % _BLOCK for place in at)
        tried = (wanted[at] + moves[:, *within]).clip(0, 255).astype(np.uint8)
        error = np.abs(_code_blocks(tried).astype(np.int16) - wanted[at]).max(axis=(2, 3, 4))
        pixels[at] = tried[error.argmin(axis=0), np.arange(len(some))]
    return pixels


def _code_blocks(blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What blocks are after encoding and decoding. [rows, columns, _BLOCK, _BLOCK, 3]."""
    rows, columns = blocks.shape[:2]
    mosaic = blocks.swapaxes(1, 2).reshape(rows * _BLOCK, columns * _BLOCK, 3)
    with Image.open(io.BytesIO(_encode_finest(Image.fromarray(mosaic)))) as decoded:
        coded = np.asarray(decoded)
    return coded.reshape(rows, _BLOCK, columns, _BLOCK, 3).swapaxes(1, 2)


_LOWER = [round(128 + (value - 128) * _LOWERED / _RAISED) for value in range(256)]


def _find_white(image: Image.Image) -> Image.Image:
    """Mode 1: the pixels that are (255, 255, 255)."""
    white = (np.asarray(image) == 255).all(axis=2)
    return Image.fromarray(white)


@cache
def _luminance_table(quality: int) -> tuple[int, ...]:
    """What the encoder itself uses at this quality, at most what still fits a byte when raised."""
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
