"""Strips and tiles of a photo, and coarse maps that are enlarged tile by tile.

In a large photo nearly all of a matte is exactly 0 or 1. So expensive work on pixels is done only
in the tiles along edges.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL import Image

    Map = NDArray[np.float32]

TILE = 96
"""Side of a tile, pixels. Its float maps fit into a core's cache."""

SMALL_PRODUCT = 200_000
"""Largest matrix product, in multiplications, that OpenBLAS is sure to do on the calling thread.

From 262,000 on it uses more threads. bgx has one thread per picture already, so these would only
wait for each other.
"""

STRIP_ROWS = 256
"""Number of rows of a strip."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


def read_planes(image: Image.Image) -> Map:
    """An image of mode RGB as float32 [3, height, width], 0..255."""
    # Pillow's conversion to float takes three times as long. Planes are faster to compute with.
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")


def split_rows(box: Box) -> Iterator[Box]:
    """Strips of a box, from top to bottom. A strip fits into a core's cache."""
    left, top, right, bottom = box
    for first in range(top, bottom, STRIP_ROWS):
        yield left, first, right, min(first + STRIP_ROWS, bottom)


def tile_box(row: int, column: int, size: tuple[int, int], side: int = TILE) -> Box:
    """Box of a tile of a picture. size: (width, height) of the picture. side: of the tile."""
    left, top = column * side, row * side
    return left, top, min(left + side, size[0]), min(top + side, size[1])


def tile_ranges(
    levels: NDArray[np.uint8], side: int = TILE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Lowest and highest value in each tile of a picture, both [tile rows, tile columns].

    levels: [height, width].
    """
    height, width = levels.shape
    strips = [levels[top : top + side] for top in range(0, height, side)]
    starts = np.arange(0, width, side)
    # Calling reduceat along the columns too would take ten times as long.
    low, high = (
        pick.reduceat(np.stack([pick.reduce(strip, axis=0) for strip in strips]), starts, axis=1)
        for pick in (np.minimum, np.maximum)
    )
    return low, high


class Enlarger:
    """Enlarges coarse maps to the size of a picture, tile by tile.

    maps: float32 [n, rows, columns], no larger than the picture. size: (width, height) of the
    picture. The interpolation is by Catmull-Rom cubics (Keys, "Cubic convolution interpolation for
    digital image processing", 1981), with pixel centres aligned as in Pillow's resize.
    """

    def __init__(self, maps: Map, size: tuple[int, int]) -> None:
        _, rows, columns = maps.shape
        self._size = size
        self._top, self._down = _weigh(rows, size[1])
        self._left, weights = _weigh(columns, size[0])
        self._across = np.ascontiguousarray(weights.transpose(0, 2, 1))
        rest = ((0, 0), (2, self._down.shape[2]), (2, self._across.shape[1]))
        self._maps = np.pad(maps, rest, "edge")

    def enlarge(self, row: int, column: int) -> Map:
        """The enlarged maps inside one tile: float32 [n, height, width]."""
        left, top, right, bottom = tile_box(row, column, self._size)
        down = self._down[row, : bottom - top]
        across = self._across[column, :, : right - left]
        y, x = self._top[row], self._left[column]
        patch = self._maps[:, y : y + down.shape[1], x : x + len(across)]
        enlarged: Map = np.matmul(np.matmul(down, patch), across)
        return enlarged

    def ranges(self) -> tuple[Map, Map]:
        """Lowest and highest sample that a tile depends on, both [n, tile rows, tile columns]."""
        low = high = self._maps
        for axis, first, count in (
            (1, self._top, self._down.shape[2]),
            (2, self._left, self._across.shape[1]),
        ):
            samples = np.asarray(first)[:, None] + np.arange(count)
            low = np.take(low, samples, axis).min(axis + 1)
            high = np.take(high, samples, axis).max(axis + 1)
        return low, high


@lru_cache(maxsize=32)
def _weigh(count: int, length: int) -> tuple[list[int], Map]:
    """Weights that make `length` pixels from `count` samples along one axis, for each tile.

    Returns the index of each tile's first sample, in maps that are padded by two samples at the
    front, and float32 [tiles, TILE, samples], whose rows sum to 1.
    """
    scale = count / length
    tiles = -(-length // TILE)
    pixel = np.arange(tiles * TILE).reshape(tiles, TILE).clip(None, length - 1)
    at = (pixel + 0.5) * scale - 0.5
    first = np.floor(at[:, 0]).astype(int) - 1
    samples = first[:, None] + np.arange(int(TILE * scale) + 5)
    away = np.abs(at[:, :, None] - samples[:, None, :]).astype(np.float32)
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((2.5 - 0.5 * away) * away - 4) * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, np.float32(0)))
    return (first + 2).tolist(), weights
