"""Sums over square windows, in time that does not depend on their size; and what they tell."""

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


def share_undecided(alpha: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The share of each window that is neither clear nor opaque, 0..1; of [rows, columns].

    Some at a contour or a fringe of hair, which both sides are near to. Nearly all inside glass, or
    a part the network could not decide about.
    """
    undecided = ((alpha > 0.2) & (alpha < 0.8)).astype(np.float32)
    sums = sum_window(np.stack([undecided, np.ones_like(undecided)]), radius)
    share: NDArray[np.float32] = sums[0] / sums[1]
    return share
