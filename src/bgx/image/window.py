"""Sums over square windows, in time that does not depend on their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sum_window(maps: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Sums within `radius` cells of each, zero beyond the edge; of [n, rows, columns]."""
    for _ in range(2):
        padded = np.pad(maps, ((0, 0), (radius + 1, radius), (0, 0)))
        sums = np.cumsum(padded, axis=1)
        maps = (sums[:, 2 * radius + 1 :] - sums[:, : -2 * radius - 1]).swapaxes(1, 2)
    return maps
