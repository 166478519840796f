"""Connected regions of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def label_regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the connected regions, neighbours over a corner included.

    mask: bool [height, width]. Returns labels, int32 [height, width], 0 where the mask is False,
    and the regions' areas in pixels, int64 [count + 1], of which the first is 0. Runs of each row
    are joined by union-find (Wu, Otoo, Suzuki, "Optimizing two-pass connected-component labeling
    algorithms", 2009): quick for masks of some hundred pixels a side, slow for whole photos.
    """
    rows, starts, ends = _find_runs(mask)
    parents = list(range(len(rows)))
    first_of_row = np.searchsorted(rows, np.arange(mask.shape[0] + 1)).tolist()
    for row in range(1, mask.shape[0]):
        above, last_above = first_of_row[row - 1], first_of_row[row]
        here, last_here = first_of_row[row], first_of_row[row + 1]
        while above < last_above and here < last_here:
            if starts[above] <= ends[here] and starts[here] <= ends[above]:
                _join(parents, above, here)
            if ends[above] < ends[here]:
                above += 1
            else:
                here += 1
    roots = np.array([_find(parents, run) for run in range(len(rows))], np.int64)
    _, numbers = np.unique(roots, return_inverse=True)
    lengths = np.asarray(ends, np.int64) - np.asarray(starts, np.int64)
    areas = np.bincount(numbers + 1, weights=lengths, minlength=1).astype(np.int64)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(numbers + 1, lengths)
    return labels, areas


def _find_runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """Runs of True in reading order: their rows, first columns, and columns after the last."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    edges = np.diff(padded, axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return rows, starts.tolist(), ends.tolist()


def _join(parents: list[int], first: int, second: int) -> None:
    first, second = _find(parents, first), _find(parents, second)
    parents[max(first, second)] = min(first, second)


def _find(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run
