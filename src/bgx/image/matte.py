"""From the network's map to a matte of the photo's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT = 0.05
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
    width, height = size
    if height < grey.height:
        return grey.resize(size, Image.Resampling.LANCZOS)
    # Pillow enlarges across, then down. Between the two, columns that are empty can be left out.
    wide = grey.resize((width, grey.height), Image.Resampling.LANCZOS)
    enlarged = Image.new("L", size)
    box = wide.getbbox()
    if box is not None:
        left, _, right, _ = box
        columns = wide.crop((left, 0, right, wide.height))
        columns = columns.resize((right - left, height), Image.Resampling.LANCZOS)
        enlarged.paste(columns, (left, 0))
    return enlarged


def multiply_alpha(matte: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """The matte, mode L, within the photo's own alpha."""
    return matte if alpha is None else ImageChops.multiply(matte, alpha)


def measure_matte(alpha: Image.Image) -> tuple[float, tuple[int, int, int, int] | None]:
    """Coverage (mean alpha, 0..1) and the subject's box (left, top, right, bottom) or None."""
    box = alpha.getbbox()
    if box is None:
        return 0.0, None
    values = np.asarray(alpha.crop(box))
    coverage = int(values.sum(dtype=np.uint64)) / (255 * alpha.width * alpha.height)
    rows, columns = (np.flatnonzero(values.max(axis) >= SUBJECT_ALPHA) for axis in (1, 0))
    if rows.size == 0:
        return coverage, None
    left, top = box[:2]
    return coverage, (
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]) + 1,
        top + int(rows[-1]) + 1,
    )
