"""Decide where the subject goes in the finished picture, and put it there.

:func:`place` computes boxes and sizes only. :func:`put_on_canvas` moves the pixels, resampling
once, with premultiplied alpha. Resampling and blending work on encoded values, as in browsers,
shops and photo editors, so a picture on a background looks the same as its cut-out laid on it
there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from bgx.image.clean import SPECK
from bgx.image.matte import SUBJECT_ALPHA, measure_matte
from bgx.image.regions import grow_mask, measure_regions
from bgx.settings import Area, Length, Margins

if TYPE_CHECKING:
    from bgx.image.tiles import Box
    from bgx.options import CanvasSettings
    from bgx.settings import Align

_EDGE = 2
"""Width of the faint part of a soft edge that is kept beyond the subject, pixels of the result."""


_NO_MARGINS = Margins.even(Length(0, "px"))


class Placement(NamedTuple):
    """Which part of the photo goes where.

    source: box of the photo. size: width and height of the finished picture. target: box of the
    finished picture that the source is resampled into. note: text for the report, or None.
    """

    source: Box
    size: tuple[int, int]
    target: Box
    note: str | None = None


def find_subject(alpha: Image.Image) -> Box | None:
    """The smallest box around the pixels with an alpha of at least SUBJECT_ALPHA, without specks.

    alpha: mode L. Specks are connected regions with less than SPECK of the largest region's area.
    Returns None if there is no subject.
    """
    _, box = measure_matte(alpha)
    if box is None:
        return None
    areas, boxes = measure_regions(np.asarray(alpha.crop(box)) >= SUBJECT_ALPHA)
    kept = boxes[areas >= SPECK * areas.max()]
    left, top = (kept[:, :2].min(axis=0) + box[:2]).tolist()
    right, bottom = (kept[:, 2:].max(axis=0) + box[:2]).tolist()
    return left, top, right, bottom


def place(photo: tuple[int, int], subject: Box | None, canvas: CanvasSettings) -> Placement:
    """Compute where the subject goes, or the whole photo if the subject is not framed.

    photo: width and height. subject: the box to frame; must not be None if
    ``canvas.frames_subject``. Nothing is enlarged without ``canvas.upscale``. If the subject would
    have to be enlarged to take its share of the canvas (``fill``), the canvas is made smaller; in
    other cases the subject keeps its size. Both give a note.
    """
    placement = _frame(photo, subject, canvas)
    return _shrink(placement, _limit_size(placement.size, canvas))


def _frame(photo: tuple[int, int], subject: Box | None, canvas: CanvasSettings) -> Placement:
    source = subject if canvas.frames_subject and subject else (0, 0, *photo)
    width, height = source[2] - source[0], source[3] - source[1]
    longest = max(width, height)
    margin = canvas.margin or _NO_MARGINS
    fixed = photo if canvas.original else canvas.size
    limit = fixed or canvas.limit
    wanted = _fit((width, height), limit, margin, canvas.fill) if limit else 1.0
    scale = wanted if canvas.upscale else min(1.0, wanted)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    top, right, bottom, left = (round(side) for side in margin.pixels(longest, scale))
    if fixed is not None:
        reached = scale / wanted if canvas.fill else 1.0
        size = round(fixed[0] * reached), round(fixed[1] * reached)
    else:
        fill = canvas.fill or 1.0
        size = _widen(
            (
                max(round(shown[0] / fill), shown[0] + left + right),
                max(round(shown[1] / fill), shown[1] + top + bottom),
            ),
            canvas.aspect,
        )
        if limit is not None:
            most = max(1, round(limit[0])), max(1, round(limit[1]))
            size = min(size[0], most[0]), min(size[1], most[1])
    if canvas.align == "bottom" and canvas.fill is not None:
        bottom = round(size[1] * (1 - canvas.fill) / 2)
    across, down = _anchor(photo, source, canvas.align)
    x = left + math.floor(across * (size[0] - shown[0] - left - right))
    y = top + math.floor(down * (size[1] - shown[1] - top - bottom))
    # Rounded margins may add up to more than the free space.
    x, y = max(0, min(x, size[0] - shown[0])), max(0, min(y, size[1] - shown[1]))
    note = None
    if scale < wanted:
        sizes = f"{size[0]} x {size[1]}, subject {shown[0]} x {shown[1]}"
        note = f"not enlarged without --upscale: {sizes}"
    return Placement(source, size, (x, y, x + shown[0], y + shown[1]), note)


def _fit(
    subject: tuple[int, int], limit: tuple[float, float], margin: Margins, fill: float | None
) -> float:
    """The scale at which the subject with its margins reaches the limit."""
    longest = max(subject)
    top, right, bottom, left = margin.pixels(0, 0)
    # Margins in percent scale with the subject, those in pixels do not.
    over, beside, below, before = margin.pixels(longest, 1)
    across = subject[0] / (fill or 1.0) + before - left + beside - right
    down = subject[1] / (fill or 1.0) + over - top + below - bottom
    return min((limit[0] - left - right) / across, (limit[1] - top - bottom) / down)


def _anchor(photo: tuple[int, int], source: Box, align: Align) -> tuple[float, float]:
    """The shares of the free space left of the subject and above it, 0..1."""
    match align:
        case "center":
            return 0.5, 0.5
        case "bottom":
            return 0.5, 1.0
        case "original":
            free = photo[0] - source[2] + source[0], photo[1] - source[3] + source[1]
            return source[0] / free[0] if free[0] else 0.5, source[1] / free[1] if free[1] else 0.5
        case shares:
            return shares


def _limit_size(size: tuple[int, int], canvas: CanvasSettings) -> tuple[int, int]:
    """The size of a finished picture that is scaled down as a whole."""
    width, height = size
    match canvas.resize:
        case Area(pixels=pixels) if width * height > pixels:
            return _fit_area(size, canvas.aspect or size, pixels)
        case (most_width, most_height) if canvas.original:
            scale = min(1.0, most_width / width, most_height / height)
            return max(1, round(width * scale)), max(1, round(height * scale))
    return size


def _fit_area(size: tuple[int, int], aspect: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The size with this aspect, to the nearest pixel, that has at most so many pixels.

    size: has more pixels and the same aspect, to the nearest pixel; neither side becomes longer.
    """
    short, long = sorted(aspect)
    length = min(max(size), math.isqrt(pixels * long // short))
    breadth = max(1, round(length * short / long))
    if length * breadth > pixels:
        breadth = max(1, breadth - 1)
        longest = (2 * breadth + 1) * long // (2 * short)
        length = min(length, longest, pixels // breadth)
    return (breadth, length) if aspect[0] < aspect[1] else (length, breadth)


def _shrink(placement: Placement, size: tuple[int, int]) -> Placement:
    if size == placement.size:
        return placement
    width, height = size
    across, down = width / placement.size[0], height / placement.size[1]
    left, top, right, bottom = placement.target
    left, top = min(round(left * across), width - 1), min(round(top * down), height - 1)
    target = left, top, max(left + 1, round(right * across)), max(top + 1, round(bottom * down))
    return placement._replace(size=size, target=target)


def _widen(size: tuple[int, int], aspect: tuple[int, int] | None) -> tuple[int, int]:
    """The smallest size with this aspect, to the nearest pixel, that contains `size`."""
    if aspect is None:
        return size
    across, down = aspect
    if size[0] * down >= size[1] * across:
        return size[0], max(size[1], round(size[0] * down / across))
    return max(size[0], round(size[1] * across / down)), size[1]


def put_on_canvas(
    image: Image.Image, alpha: Image.Image, placement: Placement
) -> tuple[Image.Image, Image.Image]:
    """Colours (mode RGB) and alpha (mode L) in the finished picture's size.

    image, alpha: of the photo's size. Alpha is 0 outside the placed part, and where it is faint and
    more than _EDGE pixels away from the subject.
    """
    left, top, right, bottom = placement.target
    colours, matte = image.crop(placement.source), alpha.crop(placement.source)
    size = right - left, bottom - top
    if size != colours.size:
        colours, matte = _resample(colours, matte, size)
    canvas = Image.new("RGB", placement.size)
    canvas.paste(colours, (left, top))
    shown = Image.new("L", placement.size)
    shown.paste(_clear_haze(matte), (left, top))
    return canvas, shown


def _resample(
    colours: Image.Image, matte: Image.Image, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """Lanczos resampling with premultiplied alpha, so that no background colour bleeds in."""
    picture = colours.convert("RGBA")
    picture.putalpha(matte)
    # With reducing_gap, Pillow averages blocks of pixels first if the picture shrinks by much.
    resized = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture = resized.convert("RGBA")
    return picture.convert("RGB"), picture.getchannel("A")


def _clear_haze(matte: Image.Image) -> Image.Image:
    values = np.array(matte)
    values *= grow_mask(values >= SUBJECT_ALPHA, _EDGE)
    return Image.fromarray(values)
