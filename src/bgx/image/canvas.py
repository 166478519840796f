"""Decide where the subject goes in the finished picture, and put it there.

:func:`place` computes boxes and sizes only. :func:`put_on_canvas` moves the pixels, resampling
once, with premultiplied alpha. Resampling and blending work on encoded values, as in browsers,
shops and photo editors, so a picture on a background looks the same as its cut-out laid on it
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.image.clean import SPECK
from bgx.image.matte import SUBJECT_ALPHA, measure_matte
from bgx.image.regions import grow_mask, measure_regions

if TYPE_CHECKING:
    from bgx.image.tiles import Box
    from bgx.options import CanvasSettings

_EDGE = 2
"""Width of the faint part of a soft edge that is kept beyond the subject, pixels of the result."""


@dataclass(frozen=True, slots=True)
class Placement:
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
    source = subject if canvas.frames_subject and subject else (0, 0, *photo)
    width, height = source[2] - source[0], source[3] - source[1]
    longest = max(width, height)
    # The frame is the subject with its room. At scale s it is s * (frame_width, frame_height)
    # large, plus `pixels` on every side.
    margin = pixels = 0.0
    if canvas.margin is not None:
        in_pixels = canvas.margin.unit == "px"
        margin = 0.0 if in_pixels else canvas.margin.value / 100
        pixels = canvas.margin.value if in_pixels else 0.0
    fill = canvas.fill or 1.0
    frame_width = width / fill + 2 * margin * longest
    frame_height = height / fill + 2 * margin * longest
    limit = canvas.limit
    wanted = 1.0
    if limit is not None:
        wanted = min((limit[0] - 2 * pixels) / frame_width, (limit[1] - 2 * pixels) / frame_height)
    scale = wanted if canvas.upscale else min(1.0, wanted)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    gap = round(pixels + margin * longest * scale)
    if canvas.size is not None:
        reached = scale / wanted if canvas.fill else 1.0
        size = round(canvas.size[0] * reached), round(canvas.size[1] * reached)
    else:
        size = _widen(
            (
                max(round(shown[0] / fill), shown[0] + 2 * gap),
                max(round(shown[1] / fill), shown[1] + 2 * gap),
            ),
            canvas.aspect,
        )
        if limit is not None:
            most = max(1, round(limit[0])), max(1, round(limit[1]))
            size = min(size[0], most[0]), min(size[1], most[1])
    left, top = (size[0] - shown[0]) // 2, (size[1] - shown[1]) // 2
    if canvas.align == "bottom":
        below = gap if canvas.fill is None else round(size[1] * (1 - fill) / 2)
        top = size[1] - below - shown[1]
    note = None
    if scale < wanted:
        sizes = f"{size[0]} x {size[1]}, subject {shown[0]} x {shown[1]}"
        note = f"not enlarged without --upscale: {sizes}"
    return Placement(source, size, (left, top, left + shown[0], top + shown[1]), note)


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
