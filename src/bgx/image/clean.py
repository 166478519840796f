"""Remove faults of the network from a matte: specks, pin-holes and a faint veil.

It works on the network's own output, which is small. Soft edges stay soft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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

_VISIBLE = 0.1
"""Alpha from which a pixel belongs to a region."""

_SOLID = 0.9
"""Alpha below which a pixel belongs to a gap."""

_FRINGE = 3
"""Pixels around a speck that are removed with it."""


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
