"""Connected regions of a mask, and their surroundings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def label_regions(
    mask: NDArray[np.bool_], *, diagonal: bool = True
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the connected regions from 1 on; 0 where the mask is not set.

    mask: bool [height, width]. diagonal: whether pixels that share a corner alone are connected.
    Returns the labels, [height, width], and the regions' areas in pixels, of which the first, that
    of number 0, is 0.
    """
    starts, stops, regions = _join_runs(mask, diagonal=diagonal)
    labels = np.zeros(mask.shape, np.intp)
    labels[mask] = np.repeat(regions + 1, stops - starts)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return labels, areas


def measure_regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The connected regions' areas, [n], and boxes (left, top, right, bottom), [n, 4], in pixels.

    mask: bool [height, width], as large as a photo too. Pixels that share a corner are connected.
    """
    starts, stops, regions = _join_runs(mask, diagonal=True)
    order = np.argsort(regions, kind="stable")
    firsts = np.flatnonzero(np.diff(regions[order], prepend=-1))
    row = mask.shape[1] + 2
    starts, stops = starts[order], stops[order]
    left, right, line = starts % row - 1, stops % row - 1, starts // row
    boxes = (
        np.minimum.reduceat(left, firsts),
        np.minimum.reduceat(line, firsts),
        np.maximum.reduceat(right, firsts),
        np.maximum.reduceat(line, firsts) + 1,
    )
    return np.add.reduceat(stops - starts, firsts), np.stack(boxes, axis=1)


def _join_runs(
    mask: NDArray[np.bool_], *, diagonal: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Each row's runs of set pixels, and the number of the region, from 0 on, each belongs to.

    Starts and stops count pixels row by row, with a free one at either end of each. Runs are joined
    with those they touch in the next row (Rosenfeld and Pfaltz, "Sequential operations in digital
    picture processing", 1966, on runs).
    """
    height, width = mask.shape
    row = width + 2  # a free pixel at either end keeps runs of different rows apart
    padded = np.zeros((height, row), np.int8)
    padded[:, 1:-1] = mask
    edges = np.flatnonzero(np.diff(padded.ravel())) + 1
    starts, stops = edges[::2], edges[1::2]
    reach = int(diagonal)
    first = np.searchsorted(stops, starts + row + 1 - reach, side="left")
    last = np.searchsorted(starts, stops + row - 1 + reach, side="right")

    parent = list(range(len(starts)))

    def find(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for run, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for below in range(low, high):
            one, other = find(run), find(below)
            parent[max(one, other)] = min(one, other)

    roots = np.array([find(run) for run in range(len(parent))], np.intp)
    return starts, stops, np.unique(roots, return_inverse=True)[1]


def grow_mask(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask and every pixel within a square of that many pixels around it."""
    for _ in range(2):  # a square is a row of columns
        padded = np.pad(mask, ((pixels, pixels), (0, 0)))
        height = mask.shape[0]
        grown = [padded[offset : offset + height] for offset in range(2 * pixels + 1)]
        mask = np.logical_or.reduce(grown).T
    return mask
