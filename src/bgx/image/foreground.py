"""True colours at soft edges.

A half-transparent pixel of a photo shows the old background through the subject; put on a new
background it keeps a fringe. Its colour is ``alpha * F + (1 - alpha) * B``; this finds F.

Method: Forte, "Approximate fast foreground colour estimation", ICIP 2021 (blur fusion): F and B are
blurred means weighted by alpha and 1 - alpha, corrected so that mixing them gives the photo again;
once with a wide window, once with a narrow one. The means are smooth, so they are made on a coarse
grid; the correction is made at full size, where 0 < alpha < 1 alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.image.tiles import TILE, Enlarger, tile_box
from bgx.image.window import sum_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[np.float32]

GRID = 400
"""Long side of the coarse grid."""

RADII = (24, 2)
"""Of the wide and the narrow window, in cells of the grid; in proportion as published."""


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
        photo = np.asarray(image.crop(box), np.float32).transpose(2, 0, 1)
        smooth = colours.enlarge(row, column)
        restored = _correct(photo, share, smooth[:3], smooth[3:])
        restored += 0.5
        pixels = np.ascontiguousarray(restored.astype(np.uint8).transpose(1, 2, 0))
        image.paste(Image.fromarray(pixels), box)


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
    """Smooth foreground and background colours, 0..255: float32 [6, rows, columns]."""
    scale = min(1.0, GRID / max(working.size))
    grid = tuple(max(1, round(side * scale)) for side in working.size)
    grid = (min(grid[0], alpha.width), min(grid[1], alpha.height))
    picture = np.asarray(working.resize(grid, Image.Resampling.BOX), np.float32)
    photo = np.ascontiguousarray(picture.transpose(2, 0, 1))
    share = np.asarray(alpha.resize(grid, Image.Resampling.BOX), np.float32) / np.float32(255)
    foreground = background = photo
    for radius in RADII:
        foreground = _mean(foreground, share, radius)
        background = _mean(background, 1 - share, radius)
        smooth = np.concatenate([foreground, background])
        foreground = _correct(photo, share, foreground, background)
    return smooth


def _mean(colours: Map, weight: Map, radius: int) -> Map:
    """Weighted mean of [3, rows, columns] over windows."""
    # A pinch of weight everywhere keeps it defined where there is none.
    weight = weight + np.float32(1e-3)
    total = sum_window(weight, radius)
    return np.stack([sum_window(colour * weight, radius) / total for colour in colours])


def _correct(photo: Map, share: Map, foreground: Map, background: Map) -> Map:
    """The foreground that, mixed with the background by share, comes closest to the photo."""
    difference = photo - background
    difference -= share * (foreground - background)
    difference *= share
    difference += foreground
    return difference.clip(0, 255, out=difference)
