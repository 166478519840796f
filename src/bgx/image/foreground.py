"""True colours at soft edges.

A half-transparent pixel of a photo shows the old background through the subject; put on a new
background it keeps a fringe. Its colour is ``alpha * F + (1 - alpha) * B``; this finds F.

Method: least squares of that equation over windows, from wide to narrow, each level starting from
the one before: the data term of Germer, Uelwer, Conrad and Harmeling, "Fast multi-level foreground
estimation", ICPR 2020, solved as the guided filter solves its model, with alpha as the guide. All
but the last level is done on a coarse grid, which the equation does not notice: mixing is linear.
The last, of one pixel, is done at full size where 0 < alpha < 1 alone.

Blur fusion (Forte, ICIP 2021) costs the same and leaves twice the error in hair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.image.tiles import TILE, Enlarger, read_planes, tile_box
from bgx.image.window import share_undecided, sum_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[np.float32]

GRID = 128
"""Long side of the coarse grid."""

RADII = (20, 5, 2)
"""Of the windows, in cells of the grid."""

NEAR = 5
"""Radius, in cells, in which something has to be decided for colours to be told apart."""

OPEN = (0.7, 0.95)
"""Undecided share of it from which the photo's colours begin to stay, and stay."""

RIDGE = 0.05
"""Pull towards the level before: what one pixel cannot tell, the wider window says."""


def restore_foreground(image: Image.Image, alpha: Image.Image, working: Image.Image) -> None:
    """Replace the photo's colours by the foreground's own where 0 < alpha < 255, in place.

    image: mode RGB. alpha: mode L, same size. working: the photo made smaller, mode RGB.
    """
    opacity = np.asarray(alpha)
    tiles = _soft_tiles(opacity)
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
        # Plane by plane: one copy of them all, interleaved, takes twice as long.
        levels = np.empty((*share.shape, 3), np.uint8)
        for channel, plane in enumerate(planes):
            levels[..., channel] = plane
        image.paste(Image.fromarray(levels), box)


def _soft_tiles(opacity: NDArray[np.uint8]) -> list[list[int]]:
    """(row, column) of tiles that are neither all clear nor all opaque."""
    height, width = opacity.shape
    strips = [opacity[top : top + TILE] for top in range(0, height, TILE)]
    starts = np.arange(0, width, TILE)
    # ufunc.reduceat down the columns would take ten times as long.
    low = np.minimum.reduceat(np.stack([strip.min(axis=0) for strip in strips]), starts, axis=1)
    high = np.maximum.reduceat(np.stack([strip.max(axis=0) for strip in strips]), starts, axis=1)
    found: list[list[int]] = np.argwhere((low < 255) & (high > 0)).tolist()
    return found


def _estimate(working: Image.Image, alpha: Image.Image) -> Map:
    """Smooth foreground and background colours, 0..255, and how far to go by them, 0..1.

    float32 [7, rows, columns].
    """
    scale = min(1.0, GRID / max(working.size))
    grid = tuple(max(1, round(side * scale)) for side in working.size)
    grid = (min(grid[0], alpha.width), min(grid[1], alpha.height))
    photo = read_planes(working.resize(grid, Image.Resampling.BOX))
    # In two steps, the first by a whole number: half the time, and two levels at most.
    coarse = alpha.resize(grid, Image.Resampling.BOX, reducing_gap=2.0)
    share = np.asarray(coarse, np.float32) / np.float32(255)
    foreground = background = photo.mean(axis=(1, 2), keepdims=True)
    for radius in RADII:
        foreground, background = _unmix(photo, share, foreground, background, radius)
    # Inside a wide half-transparent part there is no telling one colour from the other.
    low, high = OPEN
    trust = ((high - share_undecided(share, NEAR)) / (high - low)).clip(0, 1)
    return np.concatenate([foreground, background, trust[None]])


def _unmix(
    photo: Map, share: Map, foreground: Map, background: Map, radius: int
) -> tuple[Map, Map]:
    """One level: the change of both colours that explains the photo best in each window."""
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
    """The foreground that, mixed with about that background, gives the photo's very pixels."""
    rest = 1 - share
    change = photo - background
    change -= share * (foreground - background)
    # Of an opaque pixel nothing is left to guess.
    change *= share / (share * share + rest * (rest + RIDGE))
    change += foreground
    return change
