"""Sums over square windows, and what they tell."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_BLOCK = 24
"""Cells whose sums are one product: few enough that a narrow window's band is not mostly zeros, and
that each product stays on the calling thread (see tiles.SMALL_PRODUCT)."""


def sum_window(maps: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Sums within `radius` cells of each, zero beyond the edge; of [n, rows, columns].

    As products with blocks of a banded matrix: on grids of some hundred cells they take less
    time than running sums, which go cell by cell.
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
    """Blocks of cells along an axis: which, those within `radius` of any of them, and float32
    [cells, seen], 1 where the two are at most `radius` apart."""
    blocks = []
    for first in range(0, length, _BLOCK):
        last = min(first + _BLOCK, length)
        seen = slice(max(0, first - radius), min(last + radius, length))
        apart = np.arange(first, last)[:, None] - np.arange(seen.start, seen.stop)
        blocks.append((slice(first, last), seen, (np.abs(apart) <= radius).astype(np.float32)))
    return blocks


def share_undecided(alpha: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The share of each window that is neither clear nor opaque, 0..1; of [rows, columns].

    Some at a contour or a fringe of hair, which both sides are near to. Nearly all inside glass, or
    a part the network could not decide about.
    """
    undecided = ((alpha > 0.2) & (alpha < 0.8)).astype(np.float32)
    sums = sum_window(np.stack([undecided, np.ones_like(undecided)]), radius)
    share: NDArray[np.float32] = sums[0] / sums[1]
    return share
