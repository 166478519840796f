"""Sums over square windows, and what they tell."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sum_window(maps: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Sums within `radius` cells of each, zero beyond the edge; of [n, rows, columns].

    As products with banded matrices: on grids of some hundred cells they take less time than
    running sums, which go cell by cell.
    """
    count, rows, columns = maps.shape
    across = maps.reshape(count * rows, columns) @ _band(columns, radius)
    sums: NDArray[np.float32] = _band(rows, radius) @ across.reshape(maps.shape)
    return sums


@lru_cache(maxsize=32)
def _band(length: int, radius: int) -> NDArray[np.float32]:
    """float32 [length, length], 1 where row and column are at most `radius` apart."""
    cells = np.arange(length)
    near: NDArray[np.bool_] = np.abs(cells[:, None] - cells) <= radius
    return near.astype(np.float32)


def share_undecided(alpha: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The share of each window that is neither clear nor opaque, 0..1; of [rows, columns].

    Some at a contour or a fringe of hair, which both sides are near to. Nearly all inside glass, or
    a part the network could not decide about.
    """
    undecided = ((alpha > 0.2) & (alpha < 0.8)).astype(np.float32)
    sums = sum_window(np.stack([undecided, np.ones_like(undecided)]), radius)
    share: NDArray[np.float32] = sums[0] / sums[1]
    return share
