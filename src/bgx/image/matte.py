"""Turns the network's output into a matte of the photo's size, and measures mattes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

from bgx.image.tiles import SMALL_PRODUCT, split_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT = 0.05
"""Network outputs whose range is less than this show no subject; stretched, they would be noise."""

SUBJECT_ALPHA = 10
"""Alpha (0..255) from which a pixel counts as part of the subject."""

_LOBES = 3
_BLOCK = 64


def stretch_matte(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch a network's output to a matte, 0..1; zeros if it spans less than FLAT or has NaN."""
    low, high = float(values.min()), float(values.max())
    if not FLAT <= high - low < np.inf:  # also where either is NaN
        return np.zeros_like(values)
    return (values - np.float32(low)) * np.float32(1 / (high - low))


def upsample_matte(matte: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    """Resize a matte by Lanczos.

    matte: float32 [height, width]; NaN becomes 0, other values are clipped to 0..1. size: (width,
    height) of the result, which has mode L.
    """
    values = np.nan_to_num(matte, nan=0.0).clip(0.0, 1.0)
    grey = (values * np.float32(255.0)).astype(np.uint8)
    width, height = size
    if width < grey.shape[1] or height < grey.shape[0]:
        return Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS)
    # First the width, then the height, as Pillow does. Empty columns are left out in between.
    wide = np.empty((width, len(grey)), np.uint8)
    _enlarge(np.ascontiguousarray(grey.T), wide)
    subject = np.flatnonzero(wide.any(1))
    alpha = np.zeros((height, width), np.uint8)
    if subject.size:
        columns = slice(subject[0], subject[-1] + 1)
        _enlarge(np.ascontiguousarray(wide[columns].T), alpha[:, columns])
    return Image.fromarray(alpha)


def _enlarge(rows: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Enlarge `rows`, [m, columns], into `out`, [n, columns], where m <= n.

    The result is that of Pillow's resize, except that Pillow rounds the weights. It takes a fifth
    of the time, because each block of rows depends on few samples and stays in the core's cache.
    """
    for block, (first, weights) in enumerate(_weigh_rows(len(rows), len(out))):
        samples = rows[first : first + weights.shape[1]].astype(np.float32)
        step = max(1, SMALL_PRODUCT // weights.size)
        for left in range(0, rows.shape[1], step):
            columns = slice(left, left + step)
            enlarged = weights @ samples[:, columns]
            enlarged += np.float32(0.5)
            np.clip(enlarged, 0.0, 255.0, out=enlarged)
            out[block * _BLOCK : block * _BLOCK + len(weights), columns] = enlarged


@lru_cache(maxsize=8)
def _weigh_rows(count: int, length: int) -> list[tuple[int, NDArray[np.float32]]]:
    """Weights that make `length` rows from `count` samples, for a Lanczos kernel of three lobes.

    Returns for each block of rows the first sample and float32 [rows, samples], whose rows sum to
    1. At the ends the kernel is cut off, as in Pillow.
    """
    blocks = []
    for top in range(0, length, _BLOCK):
        centres = (np.arange(top, min(top + _BLOCK, length)) + 0.5) * (count / length)
        first, beyond = (
            np.floor(centres + reach + 0.5).clip(0, count).astype(int)
            for reach in (-_LOBES, _LOBES)
        )
        samples = np.arange(first[0], beyond[-1])
        away = samples + 0.5 - centres[:, None]
        weights = np.sinc(away) * np.sinc(away / _LOBES)
        weights *= (samples >= first[:, None]) & (samples < beyond[:, None])
        weights /= weights.sum(1, keepdims=True)
        blocks.append((int(first[0]), weights.astype(np.float32)))
    return blocks


def multiply_alpha(matte: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """The matte multiplied by the photo's own alpha, if it has one. Mode L."""
    return matte if alpha is None else ImageChops.multiply(matte, alpha)


def measure_matte(alpha: Image.Image) -> tuple[float, tuple[int, int, int, int] | None]:
    """Mean alpha (0..1), and the box around all pixels with an alpha of at least SUBJECT_ALPHA.

    alpha: mode L. The box is (left, top, right, bottom), or None if there is no such pixel.
    """
    box = alpha.getbbox()
    if box is None:
        return 0.0, None
    left, top, right, bottom = box
    total = 0
    rows = np.empty(bottom - top, np.uint8)
    columns = np.zeros(right - left, np.uint8)
    # In strips: a copy of the whole matte would add a third to the memory that a picture takes.
    for strip in split_rows(box):
        values = np.asarray(alpha.crop(strip))
        total += int(values.sum(dtype=np.uint64))
        values.max(1, out=rows[strip[1] - top : strip[3] - top])
        np.maximum(columns, values.max(0), out=columns)
    coverage = total / (255 * alpha.width * alpha.height)
    across, down = (np.flatnonzero(ends >= SUBJECT_ALPHA) for ends in (columns, rows))
    if down.size == 0:
        return coverage, None
    return coverage, (
        left + int(across[0]),
        top + int(down[0]),
        left + int(across[-1]) + 1,
        top + int(down[-1]) + 1,
    )
