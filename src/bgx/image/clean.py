"""Take the network's slips out of a matte: specks, pin-holes, a veil over all or nothing.

Works on the network's own map, which is small, and leaves soft edges soft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[np.float32]

VEIL = 0.02
"""What is this close to 0 or 1 becomes it; the values between are stretched to close the gap."""

SPECK = 1 / 200
"""Share of the largest part's area below which a part is a speck."""

PINHOLE = 1 / 2000
"""Share of the largest part's area below which a gap inside it is a pin-hole."""

_VISIBLE = 0.1
"""Alpha from which neighbouring pixels are one part."""

_SOLID = 0.9
"""Alpha from which a pixel closes a gap off."""

_FRINGE = 3
"""Pixels around a speck that belong to it."""


def clean_matte(matte: Map) -> Map:
    """The matte without specks, pin-holes and veil. matte: float32 [height, width], 0..1."""
    cleaned: Map = ((matte - np.float32(VEIL)) / np.float32(1 - 2 * VEIL)).clip(0, 1)
    parts, areas = _measure_parts(cleaned >= _VISIBLE, diagonal=True)
    if areas.size == 0:
        return cleaned
    main = areas.max()
    speck = (areas < SPECK * main)[parts - 1] & (parts > 0)
    if speck.any():
        kept = (parts > 0) & ~speck
        cleaned[_grow(speck, _FRINGE) & ~kept] = 0
    gaps, areas = _measure_parts(cleaned < _SOLID, diagonal=False)
    if areas.size:
        closed = areas < PINHOLE * main
        # What reaches the picture's edge is not inside anything.
        rim = np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]])
        closed[rim[rim > 0] - 1] = False
        cleaned[closed[gaps - 1] & (gaps > 0)] = 1
    return cleaned


def label_parts(mask: NDArray[np.bool_], *, diagonal: bool) -> NDArray[np.intp]:
    """Number the connected parts of a mask from 1 on; 0 where it is not set.

    diagonal: whether pixels that share a corner alone are connected. Runs of each row are joined
    with those they touch in the next one (Rosenfeld and Pfaltz, "Sequential operations in digital
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
    _, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(mask.shape, np.intp)
    labels[mask] = np.repeat(numbers + 1, stops - starts)
    return labels


def _measure_parts(
    mask: NDArray[np.bool_], *, diagonal: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbered parts and, from part 1 on, their areas in pixels."""
    labels = label_parts(mask, diagonal=diagonal)
    return labels, np.bincount(labels.ravel())[1:]


def _grow(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask and every pixel within a square of that many pixels around it."""
    for _ in range(2):
        padded = np.pad(mask, ((pixels, pixels), (0, 0)))
        height = mask.shape[0]
        grown = [padded[offset : offset + height] for offset in range(2 * pixels + 1)]
        mask = np.logical_or.reduce(grown).T
    return mask
