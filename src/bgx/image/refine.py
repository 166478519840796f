"""Bring the network's matte to the photo's own edges.

The network sees some 320 pixels a side; in a large photo its edges are soft by tens of pixels.
Around every place a linear model ``alpha = a . colour + b`` is fitted, as in the guided filter (He,
Sun and Tang, "Guided Image Filtering", TPAMI 2013, section 3.5), with three differences:

- Only pixels count of which the network is sure. What is learnt is thus how foreground and
  background differ in colour here (Fisher's linear discriminant), not how soft the matte is.
- The model is trusted as far as it tells the sure pixels apart (its R squared). Where both sides
  look alike the network's matte stays, except that what it is nearly sure of is raised.
- The network keeps a say: nothing appears far from what it saw, no hole opens where it is sure,
  what it is nine tenths sure of becomes opaque, or 85 % where the colours do not tell, and nothing
  else does on the colours' word alone.

The fit is done on a coarse grid and applied to a sketch, the photo made smaller. That refined
sketch teaches a second fit, in windows of some pixels: the guided filter as published, which needs
no sure pixels, follows finer lines and evens out grain. It is applied to the full-size photo ("Fast
Guided Filter", He and Sun, 2015). All but the first fit works in tiles along the edges alone.

On true alpha the second fit takes 1 % of the error at the edge that the first one leaves, and
6 % of its gradient's. What did not pay: the guided filter without the first fit (a tenth
of the gain at the edge), a denser grid for the first fit, a sharper matte to begin with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.image.tiles import TILE, Enlarger, read_planes, tile_box
from bgx.image.window import ramp, share_undecided, sum_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Map = NDArray[np.float32]

GRID = 128
"""Long side of the coarse grid. A denser one, with windows as wide, brought nothing."""

RADII = (2, 6, 20)
"""Of the windows, in cells of the grid. The narrowest that can be trusted has the word."""

NEAR = 5
"""Radius, in cells, in which something has to be decided for the fit to be used."""

OPEN = (0.5, 0.8)
"""Undecided share of it from which the fit is doubted, and left out."""

REACH = 2
"""Radius, in cells, in which the network has to have seen something: hair goes on beyond its matte,
but so does background of the hair's colour."""

SEEN = (0.25, 1.25)
"""Alpha there, summed over the cells, from which the fit is used at all, and fully."""

SHOWN = (0.02, 0.06)
"""A cell's alpha, the network's or that of its mean colour, from which the fit is used at all, and
fully."""

RIDGE = 3e-5
"""Added to the colours' variances (0..1 squared): one of half a per cent, a quiet photo's noise."""

SURE = 0.8
"""Alpha from which a pixel begins to count as foreground, its complement as background."""

TRUST = (0.8, 0.99)
"""R squared from which a fit is used at all, and fully."""

AGREED = 0.85
"""The network's alpha from which it speaks for the subject: from here to 1 what the colours say is
raised more and more, up to half as much again, and may become full."""

UNTOLD = 0.1
"""How much lower that is where the colours do not tell subject from background. Where they do, an
alpha of 0.8 is probably a true mixture; where they do not, it is more often the inside of a
subject. Inside a wide half-transparent part they do not either."""

RAISE = 3.0
"""How much more: by this times what the network is above AGREED."""

ALONE = 0.97
"""As opaque as the colours make the sketch where the network does not agree. The eight levels below
255 do not show."""

HELD = (0.95, 0.98)
"""The network's alpha from which the colours take nothing away: where that begins, and is so."""

FAINT = 0.02
"""Alpha below this becomes 0, and fits trusted less are not used."""

COMPANY = (0.05, 0.14)
"""Mean alpha of the 5 x 5 pixels around one from which it counts at all, and fully: grain of the
subject's colour comes by the pixel, hair does not."""

CELLS = 400
"""Along the long side of the second fit's grid, about. A cell is one pixel of a small photo's
sketch, two of a larger one's; its windows have 3 x 3 cells."""

QUIET = 3e-4
"""Added to the colours' variances (0..1 squared) in the second fit."""

CONTRAST = (0.005, 0.05)
"""Variance of alpha in a window of the second fit from which it is made steeper at all, and
fully: within an even veil there is no edge to be made steep."""

STEEPER = (0.02, 0.08)
"""How much, at either end of alpha: by the first for each pixel of the photo along one of the
sketch, up to the second. The sketch knows nothing of the photo's grain, which would show."""

NEARLY = 0.01
"""What is this close to 1 after the second fit becomes 1."""

_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def refine_matte(matte: Map, working: Image.Image, image: Image.Image) -> Image.Image:
    """The matte at the photo's size, with the photo's edges.

    matte: float32 [height, width], 0..1, any size. working: the photo made smaller, mode RGB.
    image: the photo, mode RGB. Returns mode L of the photo's size. A matte without doubt (all 0,
    all 1) comes back as it is.
    """
    size = image.size
    sketch, cell = _fit_cells(working)
    refined = _refine_sketch(matte.clip(0, 1), sketch)
    steeper = min(STEEPER[1], STEEPER[0] * max(size) / max(sketch.size))
    maps = _follow(refined, sketch, cell, steeper)
    model = Enlarger(maps[:4], size)
    [low], [high] = Enlarger(maps[4:], size).ranges()
    alpha = np.zeros((size[1], size[0]), np.uint8)
    for row, column in np.argwhere(high > 0).tolist():
        left, top, right, bottom = box = tile_box(row, column, size)
        if low[row, column] >= 1:
            alpha[top:bottom, left:right] = 255
        else:
            pixels = read_planes(image.crop(box))
            alpha[top:bottom, left:right] = _apply(pixels, model.enlarge(row, column))
    return Image.fromarray(alpha)


def _fit_cells(working: Image.Image) -> tuple[Image.Image, int]:
    """The working image with whole cells of the second fit, and their side in pixels."""
    cell = 1 if max(working.size) < 1.5 * CELLS else 2
    size = (working.width // cell * cell, working.height // cell * cell)
    if min(size) == 0:
        return working, 1
    return working if working.size == size else working.resize(size), cell


def _refine_sketch(matte: Map, sketch: Image.Image) -> NDArray[np.uint8]:
    """Alpha 0..255 of the sketch, by the first fit."""
    size = sketch.size
    matte = _shrink(matte, size)
    prior = Enlarger(matte[None], size)
    ([low], [high]) = prior.ranges()
    certain = low >= HELD[1]
    alpha = np.zeros((size[1], size[0]), np.uint8)
    for row, column in np.argwhere(certain).tolist():
        left, top, right, bottom = tile_box(row, column, size)
        alpha[top:bottom, left:right] = 255
    if not certain.all() and high.max() > FAINT:
        maps = _fit(matte, sketch)
        model = Enlarger(maps, size)
        [least], _ = Enlarger(maps[4:], size).ranges()
        seen = (high > FAINT) | (least < 1 - FAINT)
        for row, column in np.argwhere(seen & ~certain).tolist():
            left, top, right, bottom = box = tile_box(row, column, size)
            pixels = read_planes(sketch.crop(box))
            [doubted] = prior.enlarge(row, column)
            alpha[top:bottom, left:right] = _decide(pixels, doubted, model.enlarge(row, column))
    return alpha


def _shrink(matte: Map, size: tuple[int, int]) -> Map:
    """The matte with no more rows and columns than a picture of that size."""
    height, width = matte.shape
    if width <= size[0] and height <= size[1]:
        return matte
    smaller = (min(width, size[0]), min(height, size[1]))
    return np.asarray(Image.fromarray(matte).resize(smaller, Image.Resampling.BOX))


def _fit(matte: Map, working: Image.Image) -> Map:
    """Local models on the grid: float32 [5, rows, columns].

    alpha is ``maps[:3] . colour (0..255) + maps[3] + maps[4] * matte``.
    """
    scale = min(1.0, GRID / max(working.size))
    columns, rows = (max(1, round(side * scale)) for side in working.size)
    # Colours and matte at twice the grid's density, so that a cell knows its own variance.
    fine = (2 * columns, 2 * rows)
    picture = read_planes(working.resize(fine, Image.Resampling.BOX))
    colours = picture / np.float32(255) - np.float32(0.5)
    soft = np.asarray(Image.fromarray(matte).resize(fine, Image.Resampling.BILINEAR))

    # A pinch of weight everywhere keeps far-off places defined.
    weight = ((np.abs(2 * soft - 1) - (2 * SURE - 1)) / (2 - 2 * SURE)).clip(0.01, 1)
    inside = weight * (soft > 0.5)
    tinted = colours * weight
    squares = [tinted[i] * colours[j] for i, j in _PAIRS]
    moments = _halve(np.stack([weight, inside, *tinted, *(colours * inside), *squares]))

    model = _fit_windows(moments, RADII[0])
    for radius in RADII[1:]:
        model += (1 - model[4]) * _fit_windows(moments, radius)
    # Colours from far off say nothing about a wide part the network could not decide about.
    cells = _halve(np.stack([soft, *colours])) * np.float32(0.25)
    undecided = share_undecided(cells[0], NEAR)
    model *= 1 - ramp(undecided, *OPEN)
    # Nor is there anything to be found far from what the network saw, or where on the whole neither
    # it nor the colours show anything: grain of the subject's colour is no hair.
    shown = (model[:3] * (cells[1:] + np.float32(0.5))).sum(axis=0) + model[3]
    shown += (1 - model[4]) * cells[0]
    seen = sum_window(cells[:1], REACH)[0]
    model *= ramp(seen, *SEEN) * ramp(np.maximum(shown, cells[0]), *SHOWN)
    model[:3] /= 255
    model[4] = 1 - model[4]
    return model


def _fit_windows(moments: Map, radius: int) -> Map:
    """One model a window. moments: sums by cell of the weights and their products."""
    sums = sum_window(moments, radius)
    sums[1:] /= sums[0]
    share, centre = sums[1], sums[2:5]
    towards = sums[5:8] - share * centre
    spread = sums[8:] - np.stack([centre[i] * centre[j] for i, j in _PAIRS])
    spread[[0, 3, 5]] += RIDGE
    slope = _solve_symmetric(spread, towards)
    variance = share * (1 - share)
    explained: Map = (slope * towards).sum(axis=0) / variance.clip(1e-4)
    trust = ramp(explained, *TRUST) * ramp(variance, 0.02, 0.08)
    # A least-squares fit stays short of 0 and 1 by just its R squared; dividing by it puts the
    # mean colour of either side exactly there. The rest of the steepness is for what each side
    # varies in itself, which would show as a veil.
    explained = explained.clip(TRUST[0], 1)
    steepness = 1 + np.sqrt(1 - explained) / 2
    slope *= steepness * trust / explained
    middle = steepness * (share - np.float32(0.5)) + np.float32(0.5)
    offset = trust * middle - (slope * (centre + np.float32(0.5))).sum(axis=0)
    return np.stack([*slope, offset, trust])


def _decide(pixels: Map, prior: Map, model: Map) -> NDArray[np.uint8]:
    """Alpha 0..255 of a box of the sketch. pixels: [3, height, width], 0..255, taken over. prior:
    the network's matte there. model: of the first fit."""
    alpha = model[4] * prior
    alpha += model[3]
    pixels *= model[:3]
    for plane in pixels:
        alpha += plane
    if prior.max() > AGREED - UNTOLD:
        agreed = (prior - AGREED + UNTOLD * model[4]).clip(0)
        alpha += RAISE * agreed * alpha
        agreed += ALONE
        np.minimum(alpha, agreed, out=alpha)
        begins, full = HELD
        np.maximum(alpha, (prior - begins) / (full - begins), out=alpha)
        highest = 1.0
    else:
        highest = ALONE
    alpha = alpha.clip(0, highest)
    begins, full = COMPANY
    company = _sum_around(alpha)
    company *= 1 / (25 * (full - begins))
    company -= begins / (full - begins)
    alpha *= company.clip(0, 1)
    return _round(alpha)


def _follow(alpha: NDArray[np.uint8], sketch: Image.Image, cell: int, steeper: float) -> Map:
    """The second fit, to the sketch's refined alpha: float32 [5, rows, columns] of cells.

    alpha is ``maps[:3] . colour (0..255) + maps[3]``; maps[4] is its mean in the window, which is 0
    or 1 where all of it is. cell: side in pixels.
    """
    height, width = alpha.shape
    maps = np.zeros((5, height // cell, width // cell), np.float32)
    shares = np.pad(alpha, cell, "edge")
    colours = np.pad(np.asarray(sketch), ((cell, cell), (cell, cell), (0, 0)), "edge")
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            box = np.s_[top : top + TILE + 2 * cell, left : left + TILE + 2 * cell]
            share = shares[box]
            rows = np.s_[top // cell : (top + TILE) // cell]
            columns = np.s_[left // cell : (left + TILE) // cell]
            low, high = int(share.min()), int(share.max())
            if high == 0 or low == 255:
                maps[3:, rows, columns] = low / 255
                continue
            planes = colours[box].transpose(2, 0, 1).astype(np.float32, order="C")
            maps[:, rows, columns] = _fit_lines(planes, share, cell, steeper)
    return maps


def _fit_lines(planes: Map, share: NDArray[np.uint8], cell: int, steeper: float) -> Map:
    """:func:`_follow` for a box and a cell around it. planes: [3, height, width], 0..255."""
    alpha = share * np.float32(1 / 255)
    colours = planes * np.float32(1 / 255) - np.float32(0.5)
    squares = [colours[i] * colours[j] for i, j in _PAIRS]
    moments = np.stack([alpha, alpha * alpha, *colours, *(colours * alpha), *squares])
    if cell == 2:
        moments = _halve(moments)
    moments = moments[:, :-2] + moments[:, 1:-1] + moments[:, 2:]
    moments = moments[:, :, :-2] + moments[:, :, 1:-1] + moments[:, :, 2:]
    moments *= np.float32(1 / (3 * cell) ** 2)
    mean, centre = moments[0], moments[2:5]
    spread = moments[8:] - np.stack([centre[i] * centre[j] for i, j in _PAIRS])
    spread[[0, 3, 5]] += QUIET
    slope = _solve_symmetric(spread, moments[5:8] - centre * mean)
    offset = mean - (slope * (centre + np.float32(0.5))).sum(axis=0)
    variance = moments[1] - mean * mean
    gain = 1 / (1 - 2 * steeper * ramp(variance, *CONTRAST))
    slope *= gain / 255
    offset = gain * (offset - np.float32(0.5)) + np.float32(0.5)
    return np.stack([*slope, offset, mean])


def _apply(pixels: Map, model: Map) -> NDArray[np.uint8]:
    """Alpha 0..255 of a box. pixels: [3, height, width], 0..255, taken over."""
    pixels *= model[:3]
    alpha = model[3]
    for plane in pixels:
        alpha += plane
    levels = _round(alpha.clip(0, 1))
    levels[levels > 255 * (1 - NEARLY)] = 255
    return levels


def _round(alpha: Map) -> NDArray[np.uint8]:
    """Alpha 0..1, taken over, as 0..255; what is FAINT becomes 0."""
    alpha *= 255
    alpha += 0.5
    levels: NDArray[np.uint8] = alpha.astype(np.uint8)
    levels *= levels > 255 * FAINT
    return levels


def _sum_around(values: Map) -> Map:
    """Sums of the 5 x 5 pixels around each; beyond the edge the last ones go on."""
    padded = np.empty((values.shape[0] + 4, values.shape[1] + 4), np.float32)
    padded[2:-2, 2:-2] = values
    padded[:2, 2:-2], padded[-2:, 2:-2] = values[0], values[-1]
    padded[:, :2], padded[:, -2:] = padded[:, 2:3], padded[:, -3:-2]
    # Two, four, five: a sum less than one by one.
    pairs = padded[:-1] + padded[1:]
    down = pairs[:-3] + pairs[2:-1]
    down += padded[4:]
    pairs = down[:, :-1] + down[:, 1:]
    sums: Map = pairs[:, :-3] + pairs[:, 2:-1]
    sums += down[:, 4:]
    return sums


def _halve(maps: Map) -> Map:
    """Sums over cells of 2 x 2, of [n, rows, columns]."""
    maps = maps[:, 0::2] + maps[:, 1::2]
    return maps[:, :, 0::2] + maps[:, :, 1::2]


def _solve_symmetric(matrix: Map, right: Map) -> Map:
    """Solve 3 x 3 systems cell by cell, by the adjugate. matrix: upper triangles, by _PAIRS.

    In float64: of a grey subject on a grey ground the determinant is 1e-10, out of terms of 1e-6.
    """
    a, b, c, d, e, f = matrix.astype(np.float64)
    # The cofactors, again as an upper triangle: the adjugate is symmetric too.
    aa, ab, ac = d * f - e * e, c * e - b * f, b * e - c * d
    bb, bc, cc = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * aa + b * ab + c * ac
    x, y, z = right
    rows = ((aa, ab, ac), (ab, bb, bc), (ac, bc, cc))
    solution = np.stack([p * x + q * y + r * z for p, q, r in rows]) / determinant
    single: Map = solution.astype(np.float32)
    return single
