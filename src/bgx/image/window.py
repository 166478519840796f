"""Sums over square windows, and a smooth step."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_BLOCK = 24
"""Number of cells whose sums are computed by one matrix product.

It is small so that the matrix of a narrow window is not mostly zeros, and so that each product
stays on the calling thread (see tiles.SMALL_PRODUCT).
"""


def sum_window(maps: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Sum the cells within `radius` of each cell, along both axes; beyond the edge there are zeros.

    maps and result: [n, rows, columns]. Computed by products with blocks of a banded matrix. On
    grids of some hundred cells this is faster than running sums, which go from cell to cell.
    """
    _, rows, columns = maps.shape
    across = np.empty(maps.shape, np.float32)
    for cells, seen, band in _bands(columns, radius):
        np.matmul(maps[:, :, seen], band.T, out=across[:, :, cells])
    sums = np.empty(maps.shape, np.float32)
    for cells, seen, band in _bands(rows, radius):
        np.matmul(band, across[:, seen], out=sums[:, cells])
    return sums


@lru_cache(maxsize=32)
def _bands(length: int, radius: int) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Blocks of cells along an axis.

    For each block: its cells, the cells within `radius` of any of them, and float32 [cells, seen],
    which is 1 where two cells are at most `radius` apart.
    """
    blocks = []
    for first in range(0, length, _BLOCK):
        last = min(first + _BLOCK, length)
        seen = slice(max(0, first - radius), min(last + radius, length))
        apart = np.arange(first, last)[:, None] - np.arange(seen.start, seen.stop)
        blocks.append((slice(first, last), seen, (np.abs(apart) <= radius).astype(np.float32)))
    return blocks


def share_undecided(alpha: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Share of each window whose alpha is between 0.2 and 0.8.

    alpha: [rows, columns], 0..1. Returns [rows, columns], 0..1. It is small at a contour or at
    hair, where subject and background are both near, and close to 1 inside glass or a part that the
    network could not decide about.
    """
    undecided = ((alpha > 0.2) & (alpha < 0.8)).astype(np.float32)
    sums = sum_window(np.stack([undecided, np.ones_like(undecided)]), radius)
    share: NDArray[np.float32] = sums[0] / sums[1]
    return share


def ramp(values: NDArray[np.float32], start: float, stop: float) -> NDArray[np.float32]:
    """0 up to start, 1 from stop on, smooth between."""
    x: NDArray[np.float32] = ((values - start) / (stop - start)).clip(0, 1)
    return x * x * (3 - 2 * x)
