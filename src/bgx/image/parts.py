"""Chooses one of several subjects in a matte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from bgx.image.clean import SPECK
from bgx.image.regions import label_regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRID = 1024
"""Longest side of the copy of the matte in which parts are found."""

_HALF = 128
"""Alpha (0..255) from which a pixel belongs to a part."""


def find_part(alpha: Image.Image, which: Literal["largest", "centre"]) -> Image.Image | None:
    """A mask of the chosen part; None if there are fewer than two parts.

    alpha: mode L. A part is a connected region with an alpha of at least one half; specks do not
    count. which: the part with the largest area, or the one nearest to the centre of the matte. The
    mask has mode L, the matte's aspect ratio, and at most GRID pixels on its longer side. It is 255
    where the chosen part is nearer than any other, so that soft edges, hair and shadows stay with
    the part that they belong to.
    """
    scale = min(1.0, GRID / max(alpha.size))
    size = max(1, round(scale * alpha.width)), max(1, round(scale * alpha.height))
    small = np.asarray(alpha.resize(size, Image.Resampling.BOX))
    parts, areas = label_regions(small >= _HALF)
    if areas.size <= 2:
        return None
    chosen = areas.argmax() if which == "largest" else _find_central(parts, areas)
    kept = parts == chosen
    nearer = _measure_distance(kept) < _measure_distance((parts > 0) & ~kept)
    return Image.fromarray(np.uint8(255) * nearer)


def _find_central(parts: NDArray[np.intp], areas: NDArray[np.intp]) -> int:
    """The label of the part with the pixel that is nearest to the centre."""
    height, width = parts.shape
    down = np.arange(height) - (height - 1) / 2
    across = np.arange(width) - (width - 1) / 2
    away = down[:, None] ** 2 + across**2
    counts = areas >= SPECK * areas.max()
    away[~counts[parts]] = np.inf
    return int(parts.flat[away.argmin()])


def _measure_distance(mask: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Steps along rows and columns from each pixel to the nearest one that is set."""
    far = sum(mask.shape)
    distance = np.where(mask, np.int16(0), np.int16(far))
    for axis in (0, 1):
        steps = np.arange(mask.shape[axis], dtype=np.int16)
        steps = steps[:, None] if axis == 0 else steps
        before = np.minimum.accumulate(distance - steps, axis) + steps
        after = np.flip(np.minimum.accumulate(np.flip(distance + steps, axis), axis), axis) - steps
        distance = np.minimum(before, after)
    return distance
