"""Sums over square windows, in time that does not depend on their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sum_window(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Sum of [rows, columns] within `radius` cells of each, zero beyond the edge."""
    for _ in range(2):
        padded = np.pad(values, ((radius + 1, radius), (0, 0)))
        sums = np.cumsum(padded, axis=0)
        values = (sums[2 * radius + 1 :] - sums[: -2 * radius - 1]).T
    return values
