"""Make opaque what the network left undecided inside a subject.

The network's word alone does not tell a veil over a dark shirt from a hole that it half saw, so the
photo's colours are asked too, as in trimap-based matting that estimates a pixel's alpha from sure
subject and sure background (Wang and Cohen, "Optimized Color Sampling for Robust Matting", CVPR
2007). All of it is done on a coarse grid.

A cell is filled for either of two reasons. Its colour stands for a higher alpha than the network's,
in a region that holds enough of the sure subject. Or the matte is even there, the subject is sure
nearby, and the colour is the subject's. On photos with true masks the first reason fills more; the
second fills what the network nearly took for the subject.

What did not pay: spreading what is sure along even colours (weighted least squares); filling all
that the subject encloses, whatever its colour, which also closed gaps of the background's colour;
filling slopes of the matte whatever their colour, which makes blurred outlines hard; asking for
texture as well as colour, or the network's side outputs (neither tells subject from background
better); and repeating the fill, which gained little.

Two numbers of a constant are where its effect starts and where it is complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.image.regions import label_regions
from bgx.image.tiles import SMALL_PRODUCT
from bgx.image.window import ramp, sum_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[np.float32]

GRID = 80
"""Most cells of a side of the grid."""

UNDECIDED = (0.05, 0.85)
"""Cells with an alpha between these are filled only if their colours say so."""

SAMPLED = (0.02, 0.85)
"""Alpha up to which a sample is one of the background, and from which one of the subject."""

KNOWN = (0.04, 0.08)
"""Distance, in colour and place, of the nearest samples. Farther from the subject's, a colour is a
mixture or another object; nearer to the background's, it is also the background's. Neither tells
anything."""

EXCESS = (0.05, 0.2)
"""By how much the alpha that the colours stand for is above the network's. In a blurred outline
both are the same."""

TOGETHER = 4
"""Radius, in cells, of the mean of that difference: a veil is wide, grain and pattern are not."""

NO_HOLE = (0.05, 0.1)
"""The lowest alpha of the 5 x 5 cells around one: a hole that the network saw, and the background,
have lower ones near."""

EVEN = (0.7, 0.9)
"""That alpha as a share of the cell's own: a veil is even, a blurred edge is not."""

NEAR = 9
"""Radius, in cells, in which the network has to be sure of the subject for an even cell to be
filled."""

REGION = 0.1
"""Alpha from which cells that touch are one region."""

SURE = (0.2, 0.4)
"""Share of sure cells (0.9 and more): of the subject's cells (0.5 and more) nearby, or of the whole
region. Another object that the network doubts as a whole stays as it is, unless it touches the
subject and has its colours."""

_PLACE = 0.1
"""Distance along the grid's long side that counts as much as 1 between colours of 0..1."""


def fill_inside(matte: Map, working: Image.Image) -> Map:
    """The matte with undecided insides of the subject filled.

    matte and result: float32 [height, width], 0..1; no value becomes lower. working: what the matte
    is of, mode RGB, any size.
    """
    height, width = matte.shape
    size = (min(width, GRID), min(height, GRID))
    picture = Image.fromarray(matte)
    cells = np.asarray(picture.resize(size, Image.Resampling.BOX))
    lowest = _lowest_around(cells)
    low, high = UNDECIDED
    undecided = (cells > low) & (cells < high) & (lowest > NO_HOLE[0])
    share = ramp(lowest / cells.clip(low), *EVEN) * ramp(_share_sure_near(cells), *SURE)
    if undecided.any():
        colours = np.asarray(working.resize(size, Image.Resampling.BOX), np.float32)
        excess, known = _ask_colours(colours / np.float32(255), cells, undecided)
        denied = ramp(_average(excess, undecided), *EXCESS) * undecided
        denied *= ramp(_share_sure_region(cells), *SURE)
        share = np.maximum(share * known, denied)
    share *= ramp(lowest, *NO_HOLE) * (1 - cells)
    raised = Image.fromarray(share).resize(picture.size, Image.Resampling.BILINEAR)
    filled: Map = np.minimum(matte + np.asarray(raised), 1)
    return filled


def _lowest_around(cells: Map) -> Map:
    """The lowest of the 5 x 5 cells around each. A tenth of the time of Pillow's MinFilter."""
    rows, columns = cells.shape
    padded = np.pad(cells, 2, "edge")
    down = np.minimum.reduce([padded[row : row + rows] for row in range(5)])
    lowest: Map = np.minimum.reduce([down[:, column : column + columns] for column in range(5)])
    return lowest


def _share_sure_near(cells: Map) -> Map:
    """Share of the subject near each cell of which the network is sure."""
    subject = np.stack([cells >= 0.9, cells >= 0.5]).astype(np.float32)
    sure, all_of_it = sum_window(subject, NEAR)
    share: Map = sure / all_of_it.clip(1)
    return share


def _share_sure_region(cells: Map) -> Map:
    """Share of each cell's region of which the network is sure; 0 outside all regions."""
    regions, areas = label_regions(cells >= REGION)
    sure = np.bincount(regions[cells >= 0.9], minlength=areas.size)
    share: Map = (sure / areas.clip(1)).astype(np.float32)[regions]
    return share


def _average(values: Map, wanted: NDArray[np.bool_]) -> Map:
    """Mean of the wanted values near each cell. values: 0 where not wanted."""
    total, count = sum_window(np.stack([values, wanted.astype(np.float32)]), TOGETHER)
    mean: Map = total / count.clip(1)
    return mean


def _ask_colours(colours: Map, cells: Map, wanted: NDArray[np.bool_]) -> tuple[Map, Map]:
    """By how much the alpha that the wanted cells' colours stand for is above the cells' own, and
    how far the colours are known to be the subject's, 0..1.

    Both by the distances, in colour and place, to the nearest sample of subject and background,
    which are means of 2 x 2 cells; a mixture lies between them. Where nothing is known, the first
    is 0; where nothing is asked, it is 0 and the second 1. colours: [rows, columns, 3], 0..1. cells
    and both results: float32 [rows, columns].
    """
    rows, columns = cells.shape
    places = np.indices(cells.shape, np.float32) * np.float32(_PLACE / max(cells.shape))
    points = np.concatenate([colours, places.transpose(1, 2, 0)], axis=2)
    quarter = (rows // 2, 2, columns // 2, 2)
    even = np.s_[: rows // 2 * 2, : columns // 2 * 2]
    means = cells[even].reshape(quarter).mean(axis=(1, 3))
    samples = points[even].reshape(*quarter, 5).mean(axis=(1, 3))
    asked = points[wanted]
    # Without samples nothing is known.
    behind = _find_nearest(asked, samples[means <= SAMPLED[0]], missing=0)
    before = _find_nearest(asked, samples[means >= SAMPLED[1]], missing=1)
    excess, known = np.zeros_like(cells), np.ones_like(cells)
    known[wanted] = ramp(behind, *KNOWN) * (1 - ramp(before, *KNOWN))
    # What is known has at least this distance to the background's samples.
    share = behind / (behind + before).clip(KNOWN[0])
    excess[wanted] = known[wanted] * (share - cells[wanted])
    return excess, known


def _find_nearest(points: Map, samples: Map, *, missing: float) -> Map:
    """Distance to the nearest sample, float32 [n]; `missing` if there is none.

    points and samples: [n, axes].
    """
    distances = np.full(len(points), missing, np.float32)
    if not len(samples):
        return distances
    lengths = (samples * samples).sum(axis=1)
    step = max(1, SMALL_PRODUCT // samples.size)
    for first in range(0, len(points), step):
        some = points[first : first + step]
        squares = (lengths - 2 * (some @ samples.T)).min(axis=1) + (some * some).sum(axis=1)
        distances[first : first + step] = np.sqrt(squares.clip(0))
    return distances
