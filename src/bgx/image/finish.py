"""Make the finished picture: framed, in the colour space asked for, on a background, with a shadow.

Blending works on the encoded values of the output's colour space. Alpha is straight throughout.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from bgx.errors import BackgroundError, NoSubjectError, PictureError, TooLargeError
from bgx.image.backdrop import (
    blur_image,
    cover_canvas,
    grey_image,
    hide_subject,
    spread_photo,
)
from bgx.image.canvas import find_subject, place, put_on_canvas
from bgx.image.compose import compose_picture, flatten
from bgx.image.icc import convert_colour, convert_colours, srgb_profile
from bgx.image.read import read_photo
from bgx.image.shadow import cast_shadow
from bgx.settings import OPAQUE_FORMATS, WHITE, Backdrop, Tint

if TYPE_CHECKING:
    from bgx.image.canvas import Placement
    from bgx.image.read import Photo
    from bgx.options import OutputSettings
    from bgx.settings import Colour, ReadSettings

_BLUR = 0.02
"""Radius of a blurred background if none is given, as a share of the picture's longer side."""


class Finished(NamedTuple):
    """A finished picture, not yet encoded.

    image: mode RGBA; RGB if on an opaque background; L if only the matte is asked for. matte: mode
    L, the subject's alpha in the image, without the shadow. icc: the image's colour profile, or
    None. full: width and height that it would have without ``--resize``. notes: texts for the
    report.
    """

    image: Image.Image
    matte: Image.Image
    icc: bytes | None
    full: tuple[int, int]
    notes: tuple[str, ...] = ()


class Finisher:
    """Makes finished pictures with the same settings. Thread-safe.

    read: settings for reading the background's file, which is read at once. Raises BackgroundError
    if it cannot be read.
    """

    def __init__(self, output: OutputSettings, read: ReadSettings) -> None:
        self._output = output
        self._max_pixels = read.max_pixels
        background = output.background
        if background is None and output.format in OPAQUE_FORMATS:
            background = WHITE
        self._background: Colour | Tint | Backdrop | Image.Image | None = (
            _read_background(background, read)
            if isinstance(background, Path | bytes)
            else background
        )

    def finish(
        self, photo: Photo, colours: Image.Image, alpha: Image.Image, *, name: str
    ) -> Finished:
        """Make one finished picture.

        colours: the subject's colours, mode RGB; they are changed. alpha: mode L. Both have the
        photo's size. name: name of the photo in messages. Raises NoSubjectError if there is no
        subject to frame, and TooLargeError for a canvas that has more pixels than both this photo
        and ``read.max_pixels``, and for margins that take up the whole photo.
        """
        output = self._output
        placement, full = self._place(alpha, name)
        placed = alpha
        if output.canvas.asked:
            colours, placed = put_on_canvas(colours, alpha, placement)
        notes = (placement.note,) if placement.note else ()
        if output.mask_only:
            return Finished(placed, placed, None, full, notes)
        icc = photo.icc
        if output.colour == "srgb":
            colours, icc = convert_colours(colours, icc), None
        backdrop = self._make_backdrop(photo, alpha, placement, icc)
        image = compose_picture(colours, placed, backdrop, self._cast(placed))
        icc = srgb_profile() if output.colour == "srgb" else icc
        return Finished(image, placed, icc, full, notes)

    def _place(self, alpha: Image.Image, name: str) -> tuple[Placement, tuple[int, int]]:
        """The placement, and the size of the finished picture without ``--resize``."""
        canvas = self._output.canvas
        subject = find_subject(alpha) if canvas.frames_subject else None
        if canvas.frames_subject and subject is None:
            raise NoSubjectError(f"{name}: no subject found, so there is nothing to frame")
        if canvas.original and canvas.margin and not canvas.margin.fit_into(*alpha.size):
            raise TooLargeError(
                f"{name}: --margin {canvas.margin} leaves no space in the photo's {alpha.width} x "
                f"{alpha.height}; use less, or percent"
            )
        placement = place(alpha.size, subject, canvas)
        width, height = placement.size
        if width * height > max(self._max_pixels, alpha.width * alpha.height):
            raise TooLargeError(
                f"{name}: a canvas of {width} x {height} has more than {self._max_pixels:,} "
                "pixels; use another --canvas, or less --margin"
            )
        return placement, place(alpha.size, subject, canvas._replace(resize=None)).size

    def _make_backdrop(
        self, photo: Photo, alpha: Image.Image, placement: Placement, icc: bytes | None
    ) -> Image.Image | None:
        """The background in the colour space of ``icc``, or None if there is none."""
        size = placement.size
        match self._background:
            case None:
                return None
            case Backdrop(kind="grey"):
                backdrop = grey_image(spread_photo(_visible(photo), placement, alpha))
                return convert_colours(backdrop, photo.icc, icc)
            case Backdrop(radius=radius):
                # Without the subject, or its light would show as a glow around it.
                backdrop = spread_photo(hide_subject(_visible(photo), alpha), placement)
                backdrop = blur_image(backdrop, radius or _BLUR * max(size))
                return convert_colours(backdrop, photo.icc, icc)
            case Image.Image() as image:
                return convert_colours(cover_canvas(image, size), None, icc)
            case Tint(colour=colour, opacity=opacity):
                return Image.new("RGBA", size, (*convert_colour(colour, icc), opacity))
            case colour:
                return Image.new("RGB", size, convert_colour(colour, icc))

    def _cast(self, alpha: Image.Image) -> Image.Image | None:
        shadow = self._output.shadow
        subject = find_subject(alpha) if shadow else None
        return cast_shadow(alpha, subject, shadow) if shadow and subject else None


def _read_background(file: Path | bytes, read: ReadSettings) -> Image.Image:
    """The image file as mode RGB, converted to sRGB. file: its path or its content."""
    name = "--background" if isinstance(file, bytes) else f"--background {file}"
    try:
        photo = read_photo(file, read, name=name)
    except PictureError as error:
        raise BackgroundError(str(error)) from error
    return convert_colours(_visible(photo), photo.icc)


def _visible(photo: Photo) -> Image.Image:
    """The photo on white, so that what its own alpha hides stays hidden."""
    return photo.image if photo.alpha is None else flatten(photo.image, photo.alpha, WHITE)
