"""From a cut-out to the picture that was asked for: framed, in its colour space, on a background.

Blending works on the encoded values of the output's colour space, alpha is straight throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from bgx.errors import NoSubjectError, PictureError, TooLargeError, UsageError
from bgx.image.backdrop import blur_image, cover_canvas, grey_image, spread_photo
from bgx.image.canvas import find_subject, place, put_on_canvas
from bgx.image.compose import compose_picture, flatten
from bgx.image.icc import convert_colour, convert_colours, srgb_profile
from bgx.image.read import read_photo
from bgx.image.shadow import cast_shadow
from bgx.settings import DEFAULT_MAX_PIXELS, OPAQUE_FORMATS, WHITE, Backdrop, ReadSettings

if TYPE_CHECKING:
    from bgx.image.canvas import Placement
    from bgx.image.read import Photo
    from bgx.options import OutputSettings
    from bgx.settings import Colour

_BLUR = 0.02
"""Of the finished picture's longer side: the blur of a background that names no radius."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture as asked for, before it is encoded.

    image: RGBA, RGB on a background, L for the matte alone. matte: mode L, the subject's alpha in
    the image, without the shadow. icc: what describes the image. notes: what was decided.
    """

    image: Image.Image
    matte: Image.Image
    icc: bytes | None
    notes: tuple[str, ...] = ()


class Finisher:
    """Makes finished pictures of one kind. Thread-safe: it keeps no state but the background.

    Raises UsageError where the background's file cannot be read.
    """

    def __init__(self, output: OutputSettings) -> None:
        self._output = output
        background = output.background
        if background is None and output.format in OPAQUE_FORMATS:
            background = WHITE
        self._background: Colour | Backdrop | Image.Image | None = (
            _read_background(background) if isinstance(background, Path) else background
        )

    def finish(
        self, photo: Photo, colours: Image.Image, alpha: Image.Image, *, name: str
    ) -> Finished:
        """A picture from a photo, the subject's colours (mode RGB, taken over) and its alpha.

        All have the photo's size. Raises NoSubjectError where there is nothing to frame, and
        TooLargeError for a canvas of more pixels than this photo, and than photos may have.
        """
        output = self._output
        placement = self._place(alpha, name)
        if output.canvas.asked:
            colours, alpha = put_on_canvas(colours, alpha, placement)
        notes = (placement.note,) if placement.note else ()
        if output.mask_only:
            return Finished(alpha, alpha, None, notes)
        icc = photo.icc
        if output.colour == "srgb":
            colours, icc = convert_colours(colours, icc), None
        backdrop = self._make_backdrop(photo, placement, icc)
        image = compose_picture(colours, alpha, backdrop, self._cast(alpha))
        return Finished(image, alpha, srgb_profile() if output.colour == "srgb" else icc, notes)

    def _place(self, alpha: Image.Image, name: str) -> Placement:
        canvas = self._output.canvas
        subject = find_subject(alpha) if canvas.frames_subject else None
        if canvas.frames_subject and subject is None:
            raise NoSubjectError(f"{name}: no subject found, so there is nothing to frame")
        placement = place(alpha.size, subject, canvas)
        width, height = placement.size
        if width * height > max(DEFAULT_MAX_PIXELS, alpha.width * alpha.height):
            raise TooLargeError(
                f"{name}: a canvas of {width} x {height} has more than {DEFAULT_MAX_PIXELS:,} "
                "pixels; use another --canvas, or less --margin"
            )
        return placement

    def _make_backdrop(
        self, photo: Photo, placement: Placement, icc: bytes | None
    ) -> Image.Image | None:
        """What stands behind the subject, in the numbers of ``icc``; None for nothing."""
        size = placement.size
        match self._background:
            case None:
                return None
            case Backdrop(kind="grey"):
                backdrop = grey_image(spread_photo(_visible(photo), placement))
                return convert_colours(backdrop, photo.icc, icc)
            case Backdrop(radius=radius):
                backdrop = spread_photo(_visible(photo), placement)
                backdrop = blur_image(backdrop, radius or _BLUR * max(size))
                return convert_colours(backdrop, photo.icc, icc)
            case Image.Image() as image:
                return convert_colours(cover_canvas(image, size), None, icc)
            case colour:
                return Image.new("RGB", size, convert_colour(colour, icc))

    def _cast(self, alpha: Image.Image) -> Image.Image | None:
        shadow = self._output.shadow
        subject = find_subject(alpha) if shadow else None
        return cast_shadow(alpha, subject, shadow) if shadow and subject else None


def _read_background(path: Path) -> Image.Image:
    """Mode RGB, in sRGB."""
    try:
        photo = read_photo(path, ReadSettings(), name=f"--background {path}")
    except PictureError as error:
        raise UsageError(str(error)) from error
    return convert_colours(_visible(photo), photo.icc)


def _visible(photo: Photo) -> Image.Image:
    """The photo as it is seen on white: what its own alpha hides stays hidden."""
    return photo.image if photo.alpha is None else flatten(photo.image, photo.alpha, WHITE)
