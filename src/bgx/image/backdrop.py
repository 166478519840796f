"""Backgrounds made from images: one that covers the canvas, or the photo itself, blurred or grey.

All results have mode RGB. Blurring and greying work on linear light, so blurred highlights stay
bright, as behind a lens, and a grey has the brightness of the colour that it replaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from bgx.image.matte import SUBJECT_ALPHA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgx.image.canvas import Placement

_LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of linear red, green and blue (ITU-R BT.709, which has the same primaries as sRGB)."""

_FINE = 4.0
"""Highest standard deviation of a blur at full size, pixels. For more, the image is shrunk."""

_PLATE = 400
"""Pixels of the longer side, at least, of the copy in which the subject's place is filled."""

_RIM = 3
"""Pixels of that copy around the subject which its colours may have reached."""

_ANY_SUBJECT = [255 * (alpha >= SUBJECT_ALPHA) for alpha in range(256)]
_FOURFOLD = [min(255, 4 * value) for value in range(256)]

_REACH = 3
"""Number of standard deviations at which the Gaussian is cut off."""


def cover_canvas(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale an image until it covers `size`, and crop what is too much equally on both sides."""
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def hide_subject(photo: Image.Image, alpha: Image.Image) -> Image.Image:
    """The photo with the subject's place filled from what surrounds it.

    photo: mode RGB. alpha: the subject's, mode L, of the photo's size. The rest of a small copy is
    averaged to ever coarser ones, which are laid under one another (pull-push: Gortler et al., "The
    Lumigraph", 1996, section 3.4). Returns the photo itself where there is no subject, or nothing
    else.
    """
    step = max(1, max(photo.size) // _PLATE)
    hidden = alpha.reduce(step).point(_ANY_SUBJECT).filter(ImageFilter.MaxFilter(2 * _RIM + 1))
    if hidden.getextrema() in {(0, 0), (255, 255)}:
        return photo
    finest = photo.reduce(step)
    finest.putalpha(ImageChops.invert(hidden))
    levels = [finest]
    while max(levels[-1].size) > 1:
        coarse = levels[-1].reduce(2)
        # One pixel of four that is known is enough.
        coarse.putalpha(coarse.getchannel("A").point(_FOURFOLD))
        levels.append(coarse)
    filled = levels.pop()
    for level in reversed(levels):
        filled = filled.resize(level.size, Image.Resampling.BILINEAR)
        filled.alpha_composite(level)
    plate = photo.copy()
    box = (0, 0, photo.width / step, photo.height / step)
    bilinear = Image.Resampling.BILINEAR
    plate.paste(
        filled.convert("RGB").resize(photo.size, bilinear, box),
        mask=hidden.resize(photo.size, bilinear, box),
    )
    return plate


def spread_photo(
    photo: Image.Image, placement: Placement, alpha: Image.Image | None = None
) -> Image.Image:
    """The photo on the finished canvas, behind the placed subject, mirrored beyond its edges.

    alpha: of the subject, which is not mirrored; mode L, of the photo's size.
    """
    across = _Span.along(0, photo.width, placement)
    down = _Span.along(1, photo.height, placement)
    width = placement.size[0] - across.before - across.after
    height = placement.size[1] - down.before - down.after

    def resize(image: Image.Image) -> Image.Image:
        box = across.start, down.start, across.end, down.end
        return image.resize((width, height), Image.Resampling.LANCZOS, box, reducing_gap=3.0)

    visible = resize(photo)
    if visible.size == placement.size:
        return visible
    mirrored = visible if alpha is None else resize(hide_subject(photo, alpha))
    pads = (down.before, down.after), (across.before, across.after), (0, 0)
    spread = Image.fromarray(np.pad(np.asarray(mirrored), pads, mode="symmetric"))
    spread.paste(visible, (across.before, down.before))
    return spread


class _Span(NamedTuple):
    """What one axis of the finished picture shows.

    start, end: visible range of the photo, in its pixels. before, after: pixels of the finished
    picture that lie beyond the photo on either side.
    """

    start: float
    end: float
    before: int
    after: int

    @classmethod
    def along(cls, axis: int, length: int, placement: Placement) -> _Span:
        source, target = placement.source, placement.target
        step = (source[axis + 2] - source[axis]) / (target[axis + 2] - target[axis])
        first = source[axis] - target[axis] * step
        last = first + placement.size[axis] * step
        return cls(
            max(0.0, first),
            min(float(length), last),
            max(0, round(-first / step)),
            max(0, round((last - length) / step)),
        )


def blur_image(image: Image.Image, radius: float) -> Image.Image:
    """Gaussian blur in linear light. image: mode RGB. radius: standard deviation, pixels."""
    step = max(1, int(radius / _FINE))
    planes = []
    for channel in image.split():
        light = _average_blocks(_TO_LINEAR[np.asarray(channel)], step)
        for _ in range(2):  # along the columns, then along the rows
            light = _convolve(light, radius / step).T
        planes.append(_to_encoded(light))
    blurred = Image.fromarray(np.stack(planes, axis=-1))
    if step == 1:
        return blurred
    box = (0, 0, image.width / step, image.height / step)
    return blurred.resize(image.size, Image.Resampling.BICUBIC, box=box)


def grey_image(image: Image.Image) -> Image.Image:
    """The image without colour. image and result: mode RGB."""
    pixels = np.asarray(image)
    light = np.zeros(pixels.shape[:2], np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        light += (_TO_LINEAR * np.float32(weight))[pixels[..., channel]]
    return Image.fromarray(_to_encoded(light)).convert("RGB")


def _average_blocks(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means of blocks of step x step pixels; the image is padded with its border pixels."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % step), (0, -width % step)), mode="edge")
    rows, columns = padded.shape[0] // step, padded.shape[1] // step
    means: NDArray[np.float32] = padded.reshape(rows, step, columns, step).mean(axis=(1, 3))
    return means


def _convolve(values: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    """Convolve each column with a Gaussian; beyond the border, the border's value is repeated."""
    reach = max(1, round(_REACH * deviation))
    curve = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    result = np.zeros_like(values)
    for offset, weight in enumerate((curve / curve.sum()).astype(np.float32)):
        result += weight * padded[offset : offset + len(values)]
    return result


def _decode(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Encoded sRGB, 0..1, to linear light, 0..1 (IEC 61966-2-1)."""
    low = encoded / np.float32(12.92)
    high = ((encoded + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(encoded <= 0.04045, low, high)


_TO_LINEAR = _decode(np.arange(256, dtype=np.float32) / np.float32(255))
_LEVELS = 1 << 14
_HALF_WAY = _decode((np.arange(255, dtype=np.float32) + np.float32(0.5)) / np.float32(255))
_FROM_LINEAR = np.searchsorted(_HALF_WAY, np.arange(_LEVELS + 1) / _LEVELS).astype(np.uint8)


def _to_encoded(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Linear light, 0..1, to encoded sRGB, 0..255."""
    return _FROM_LINEAR[(light * np.float32(_LEVELS) + np.float32(0.5)).astype(np.int32)]
