"""Find the subject's own colours at soft edges.

A half-transparent pixel of a photo also shows the old background, which would be a fringe on a new
one. Its colour is ``alpha * F + (1 - alpha) * B``; this module estimates F, the foreground.

Method: solve that equation by least squares over windows, from wide to narrow; each level starts
from the result of the one before. This is the data term of Germer, Uelwer, Conrad and Harmeling,
"Fast multi-level foreground estimation", ICPR 2020, solved per window as the guided filter does,
with alpha as the guide. All levels but the last work on a coarse grid; this is possible because the
equation is linear. The last level has windows of one pixel. It works at full size, but only where
0 < alpha < 1.

Blur fusion (Forte, ICIP 2021) takes the same time and leaves twice the error in hair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.image.tiles import Enlarger, read_planes, tile_box, tile_ranges
from bgx.image.window import share_undecided, sum_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[np.float32]

GRID = 128
"""Longer side of the coarse grid, cells."""

RADII = (20, 5, 2)
"""Radii of the windows, in cells of the grid."""

NEAR = 5
"""Radius of the window in which OPEN is measured, in cells."""

OPEN = (0.7, 0.95)
"""Shares of undecided cells around a cell.

Up to the first one the estimate is used fully, from the second one on the photo's colours stay:
inside a wide half-transparent part, foreground and background cannot be told apart.
"""

RIDGE = 0.05
"""Weight that pulls a level towards the result of the level before, which had wider windows."""


def restore_foreground(
    image: Image.Image,
    alpha: Image.Image,
    working: Image.Image,
    shown: Image.Image | None = None,
) -> None:
    """Replace the photo's colours by those of the foreground where alpha < 255, in place.

    image: the photo, mode RGB. alpha: how much of each pixel is foreground, mode L, same size.
    working: a smaller copy of the photo, mode RGB. shown: the alpha that the result is to have, if
    its edge is another one. Where alpha is 0 and shown is not, the foreground's colour is continued
    from beside. Pixels of which nothing is shown may be changed too.
    """
    opacity = np.asarray(alpha)
    tiles = _soft_tiles(opacity, None if shown is alpha else shown)
    if not tiles:
        return
    colours = Enlarger(_estimate(working, alpha), image.size)
    for row, column in tiles:
        left, top, right, bottom = box = tile_box(row, column, image.size)
        share = opacity[top:bottom, left:right] * np.float32(1 / 255)
        photo = read_planes(image.crop(box))
        smooth = colours.enlarge(row, column)
        restored = _correct(photo, share, smooth[:3], smooth[3:6])
        restored -= photo
        restored *= smooth[6]
        restored += photo
        restored += 0.5
        planes = restored.clip(0, 255, out=restored).astype(np.uint8)
        # Plane by plane, because interleaving all of them in one copy takes twice as long.
        levels = np.empty((*share.shape, 3), np.uint8)
        for channel, plane in enumerate(planes):
            levels[..., channel] = plane
        image.paste(Image.fromarray(levels), box)


def _soft_tiles(opacity: NDArray[np.uint8], shown: Image.Image | None) -> list[list[int]]:
    """(row, column) of each tile that shows something and is not fully foreground.

    shown: the alpha that the result is to have, if it is another one.
    """
    low, high = tile_ranges(opacity)
    if shown is not None:  # a second pass over all pixels
        _, high = tile_ranges(np.asarray(shown))
    found: list[list[int]] = np.argwhere((low < 255) & (high > 0)).tolist()
    return found


def _estimate(working: Image.Image, alpha: Image.Image) -> Map:
    """Estimate smooth foreground and background colours on the coarse grid.

    Returns float32 [7, rows, columns]: foreground, background (0..255), and trust in them (0..1).
    """
    scale = min(1.0, GRID / max(working.size))
    grid = tuple(max(1, round(side * scale)) for side in working.size)
    grid = (min(grid[0], alpha.width), min(grid[1], alpha.height))
    photo = read_planes(working.resize(grid, Image.Resampling.BOX))
    # With reducing_gap Pillow resizes in two steps, in half the time; the result differs by two
    # levels at most.
    coarse = alpha.resize(grid, Image.Resampling.BOX, reducing_gap=2.0)
    share = np.asarray(coarse, np.float32) / np.float32(255)
    foreground = background = photo.mean(axis=(1, 2), keepdims=True)
    for radius in RADII:
        foreground, background = _unmix(photo, share, foreground, background, radius)
    # Inside a wide half-transparent part, foreground and background cannot be told apart.
    low, high = OPEN
    trust = ((high - share_undecided(share, NEAR)) / (high - low)).clip(0, 1)
    return np.concatenate([foreground, background, trust[None]])


def _unmix(
    photo: Map, share: Map, foreground: Map, background: Map, radius: int
) -> tuple[Map, Map]:
    """One level: change both colours so that they explain the photo best in each window."""
    rest = 1 - share
    left = photo - share * foreground - rest * background
    products = (np.ones_like(share), share * share, share * rest, rest * rest)
    sums = sum_window(np.stack([*products, *(share * left), *(rest * left)]), radius)
    sums[1:] /= sums[0]
    own, cross, other = sums[1] + RIDGE, sums[2], sums[3] + RIDGE
    determinant = own * other - cross * cross
    change = (other * sums[4:7] - cross * sums[7:10]) / determinant
    change_behind = (own * sums[7:10] - cross * sums[4:7]) / determinant
    return (foreground + change).clip(0, 255), (background + change_behind).clip(0, 255)


def _correct(photo: Map, share: Map, foreground: Map, background: Map) -> Map:
    """The last level: the foreground that, mixed with the background, gives the photo's pixel."""
    rest = 1 - share
    change = photo - background
    change -= share * (foreground - background)
    # The factor is 1 where alpha is 1: there the foreground is the photo's own colour.
    change *= share / (share * share + rest * (rest + RIDGE))
    change += foreground
    return change
