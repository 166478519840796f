"""Remove faults of the network from a matte: undecided insides, specks, pin-holes and a faint veil.

It works on the network's own output, which is small. Soft edges stay soft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.image.regions import grow_mask, label_regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matte = NDArray[np.float32]

VEIL = 0.02
"""Values this close to 0 or 1 become 0 or 1; the values between are stretched to the full range."""

SPECK = 1 / 200
"""A region is a speck if its area is less than this share of the largest region's."""

PINHOLE = 1 / 2000
"""A gap is a pin-hole if its area is less than this share of the largest region's."""

BEHIND = 0.4
"""Alpha up to which a cell shows the background for sure. A hole that the network saw has such
cells and stays open; a veil over an opaque subject has none."""

_GRID = 80
"""Most cells of a side of the grid on which undecided insides are found."""

_VISIBLE = 0.1
"""Alpha from which a pixel belongs to a region."""

_SOLID = 0.9
"""Alpha below which a pixel belongs to a gap."""

_FRINGE = 3
"""Pixels around a speck that are removed with it."""


def fill_inside(matte: Matte) -> Matte:
    """The matte with its minima filled where the subject encloses them.

    matte and result: float32 [height, width], 0..1. Each place is raised to the lowest alpha that
    every way from it to the background has to pass: a veil becomes as opaque as what surrounds it.
    This is morphological reconstruction by erosion (Vincent, "Morphological grayscale
    reconstruction in image analysis", 1993) from the cells that show the background, on a coarse
    grid. The picture's edge is no background: a subject may go on beyond it.
    """
    height, width = matte.shape
    size = (min(width, _GRID), min(height, _GRID))
    picture = Image.fromarray(matte)
    cells = np.asarray(picture.resize(size, Image.Resampling.BOX))
    behind = cells <= BEHIND
    if not behind.any():
        return matte
    raised = _lower(np.where(behind, cells, np.float32(1)), cells) - cells
    filling = Image.fromarray(raised).resize(picture.size, Image.Resampling.BILINEAR)
    filled: Matte = np.minimum(matte + np.asarray(filling), 1)
    return filled


def _lower(level: Matte, floor: Matte) -> Matte:
    """Lower the level, in place, to the lowest that it reaches by 4-connected ways over the floor.

    Swept down, up, right and left until nothing changes: some ten rounds.
    """
    fallen = np.empty_like(level)
    while not np.array_equal(level, fallen):
        fallen[:] = level
        for flow, ground in ((level, floor), (level.T, floor.T)):
            last = len(flow) - 1
            for at in range(1, last + 1):
                np.maximum(np.minimum(flow[at], flow[at - 1]), ground[at], out=flow[at])
            for at in range(last, 0, -1):
                np.maximum(np.minimum(flow[at], flow[at - 1]), ground[at - 1], out=flow[at - 1])
    return level


def clean_matte(matte: Matte) -> Matte:
    """The matte without specks, pin-holes and veil.

    matte and result: float32 [height, width], 0..1.
    """
    cleaned: Matte = ((matte - np.float32(VEIL)) / np.float32(1 - 2 * VEIL)).clip(0, 1)
    parts, areas = label_regions(cleaned >= _VISIBLE)
    if areas.size == 1:
        return cleaned
    main = areas.max()
    dropped = areas < SPECK * main
    dropped[0] = False
    if dropped.any():
        speck = dropped[parts]
        kept = (parts > 0) & ~speck
        cleaned[grow_mask(speck, _FRINGE) & ~kept] = 0
    gaps, areas = label_regions(cleaned < _SOLID, diagonal=False)
    closed = areas < PINHOLE * main
    # A gap at the picture's edge is not a hole. Label 0 is not a gap.
    closed[np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]])] = False
    closed[0] = False
    cleaned[closed[gaps]] = 1
    return cleaned
