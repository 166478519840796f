"""Take the network's slips out of a matte: specks, pin-holes, a veil over all or nothing.

Works on the network's own map, which is small, and leaves soft edges soft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgx.image.regions import grow_mask, label_regions

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
    # What reaches the picture's edge is not inside anything; number 0 is no gap.
    closed[np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]])] = False
    closed[0] = False
    cleaned[closed[gaps]] = 1
    return cleaned
