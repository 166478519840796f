"""From the network's map to a matte of the photo's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT = 0.1
"""A map whose values span less than this has no subject: stretching it would only show noise."""

SUBJECT_ALPHA = 10
"""Alpha (0..255) from which a pixel counts as part of the subject."""


def stretch_map(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Min-max stretch of one map, any shape, to 0..1; a flat or undefined one becomes all zero."""
    low, high = float(values.min()), float(values.max())
    if not FLAT <= high - low < np.inf:  # also where either is NaN
        return np.zeros_like(values)
    return (values - np.float32(low)) * np.float32(1 / (high - low))


def upsample_matte(matte: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    """matte: float32 [height, width], 0..1. Returns mode L of size (width, height), by Lanczos.

    Undefined values become 0, others are clipped.
    """
    values = np.nan_to_num(matte, nan=0.0).clip(0.0, 1.0)
    grey = Image.fromarray((values * np.float32(255.0)).astype(np.uint8))
    return grey.resize(size, Image.Resampling.LANCZOS)


def multiply_alpha(matte: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """The matte, mode L, within the photo's own alpha."""
    return matte if alpha is None else ImageChops.multiply(matte, alpha)


def measure_matte(alpha: Image.Image) -> tuple[float, tuple[int, int, int, int] | None]:
    """Coverage (mean alpha, 0..1) and the subject's box (left, top, right, bottom) or None."""
    values = np.asarray(alpha)
    coverage = float(np.dot(alpha.histogram(), np.arange(256))) / (255 * values.size)
    rows, columns = (np.flatnonzero(values.max(axis) >= SUBJECT_ALPHA) for axis in (1, 0))
    if rows.size == 0:
        return coverage, None
    return coverage, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
