"""From an open file to a :class:`Photo`.

Pictures are untrusted input: only the listed formats are tried (Pillow would hand EPS to
Ghostscript), the size is checked before anything is decoded, and whatever a decoder raises ends as
one :class:`~bgx.errors.PictureError` that names the file.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError, _imaging

from bgx.errors import PictureError, TooLargeError, UnreadableError
from bgx.image.compose import flatten
from bgx.image.metadata import read_metadata
from bgx.image.rgb import to_rgb
from bgx.install import install_hint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from bgx.image.metadata import Metadata
    from bgx.settings import ReadSettings

log = logging.getLogger(__name__)

Picture = Path | bytes | BinaryIO | Image.Image
"""Where a photo may come from: a file, a whole file's bytes, a stream that can seek, an image of
Pillow's."""

READ_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
"""Pillow's names of the formats that are tried; HEIF needs the extra ``heif``."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff"}
    | {".bmp", ".dib", ".gif", ".avif", ".heic", ".heif"}
)
"""Suffixes, lower case, of what is taken for a picture when a folder is walked."""

_MAX_DPI = 65535
"""The most that JPEG can say. A resolution of 1 or less is what writers put who know none."""

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"mif1", b"msf1"})

# Pixels hidden under the photo's own alpha must not reach the network. Mid-grey leaves white
# products and black ones both visible against it.
_HIDDEN = (128, 128, 128)

_Transpose = Image.Transpose
_TURNS = {  # EXIF 2.3, 4.6.4 A, tag Orientation
    2: _Transpose.FLIP_LEFT_RIGHT,
    3: _Transpose.ROTATE_180,
    4: _Transpose.FLIP_TOP_BOTTOM,
    5: _Transpose.TRANSPOSE,
    6: _Transpose.ROTATE_270,
    7: _Transpose.TRANSVERSE,
    8: _Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[tag] for tag in (5, 6, 7, 8)}


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded picture, upright.

    image: mode RGB, pixels alone: no metadata, no way back to the file. alpha: mode L, same size,
    or None where the file had none or an opaque one. size: width and height of the photo, and of
    the image unless it was read reduced. working: mode RGB, long side at most
    ``ReadSettings.max_size``; what the network sees. icc: an RGB profile that describes ``image``.
    dpi: horizontal, vertical. notes: what the report should say about the file. metadata: EXIF and
    XMP, where they were asked for.
    """

    image: Image.Image
    alpha: Image.Image | None
    size: tuple[int, int]
    working: Image.Image
    icc: bytes | None
    dpi: tuple[float, float] | None
    notes: tuple[str, ...] = ()
    metadata: Metadata | None = None


def prepare_process() -> None:
    """Set Pillow up for a process that is bgx's own; a library must not, these are global.

    ``ReadSettings.max_pixels`` alone decides how large a picture may be. bgx's errors alone say
    what is wrong with a file: Pillow's warnings and log and libtiff's messages stay off stderr.
    """
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(AttributeError, OSError):  # where libtiff does not export it
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def count_pixels(source: Picture) -> int:
    """Width x height from the file's header, 0 where it cannot be read; never raises."""
    if isinstance(source, Image.Image):
        return source.width * source.height
    if isinstance(source, Path) and not os.path.isfile(source):  # noqa: PTH113 - Path's own raises
        return 0  # a pipe gives its bytes once, and may let us wait for them
    try:
        with _open_source(source) as stream, _identify(stream) as opened:
            return opened.width * opened.height
    except Exception:  # noqa: BLE001 - the reader says what is wrong with it, in its turn
        return 0


class OpenedPhoto:
    """A picture whose header is read, and nothing else yet.

    size: width and height as stored, before the picture is turned upright. Made by
    :func:`open_photo`, and of use only inside its ``with``.
    """

    def __init__(
        self, image: Image.Image, settings: ReadSettings, *, name: str, owned: bool
    ) -> None:
        self.size = image.size
        self._image = image
        self._settings = settings
        self._name = name
        self._owned = owned

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the picture turned upright, as far as its header tells."""
        turn = _TURNS.get(_read_exif(self._image).get(ExifTags.Base.Orientation, 1))
        width, height = self.size
        return (height, width) if turn in _SIDEWAYS else (width, height)

    def decode(self, *, metadata: bool = False, reduced: bool = False) -> Photo:
        """The photo. May be called once.

        metadata: read EXIF and XMP too. reduced: the image itself is not needed; a JPEG is decoded
        to no more than the working image asks for, in half the time. Raises UnreadableError
        (truncated, damaged) and TooLargeError (more than memory holds).
        """
        with _one_line(self._name):
            image = self._image if self._owned else self._image.copy()
            return _make_photo(image, self._settings, metadata=metadata, reduced=reduced)


@contextlib.contextmanager
def open_photo(
    source: BinaryIO | Image.Image, settings: ReadSettings, *, name: str
) -> Iterator[OpenedPhoto]:
    """Open a picture and read its header; decode it inside the ``with``, from the same open file.

    source: a stream that can seek, read from its start and left open, or an image of Pillow's,
    which stays untouched. name: what messages call it. Raises UnreadableError (empty, not a
    picture) and TooLargeError (more than ``settings.max_pixels``).
    """
    with contextlib.ExitStack() as opened:
        with _one_line(name):
            owned = not isinstance(source, Image.Image)
            image = source if isinstance(source, Image.Image) else _open(source, name)
            if owned:
                opened.enter_context(image)
            _check_size(image, settings, name)
        yield OpenedPhoto(image, settings, name=name, owned=owned)


def read_photo(
    source: Picture,
    settings: ReadSettings,
    *,
    name: str,
    metadata: bool = False,
    reduced: bool = False,
) -> Photo:
    """Open and decode a picture: :func:`open_photo` and :meth:`OpenedPhoto.decode` in one.

    Raises what they raise, and UnreadableError for a file that cannot be opened.
    """
    with contextlib.ExitStack() as opened:
        if not isinstance(source, Image.Image):
            with _one_line(name):
                source = opened.enter_context(_open_source(source))
        photo = opened.enter_context(open_photo(source, settings, name=name))
        return photo.decode(metadata=metadata, reduced=reduced)


def _open_source(source: Path | bytes | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """A stream over it; closes what it opened itself."""
    match source:
        case Path():
            return source.open("rb")
        case bytes():
            return io.BytesIO(source)
        case _:
            return contextlib.nullcontext(source)


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises into a PictureError of one line."""
    try:
        yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(
            f"{name}: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows; raise it if you trust it"
        ) from error
    except MemoryError as error:
        raise TooLargeError(f"{name}: too large to decode in memory; scale it down") from error
    except Exception as error:
        raise UnreadableError(f"{name}: cannot be read: {_explain(error)}") from error


def _make_photo(
    image: Image.Image, settings: ReadSettings, *, metadata: bool, reduced: bool
) -> Photo:
    """A photo from an opened image, which is taken over. Raises whatever Pillow's decoder raises.

    metadata, reduced: as for :meth:`OpenedPhoto.decode`.
    """
    several = getattr(image, "is_animated", False)
    # A phone's MPO holds one photo and its previews, not an animation.
    notes = ("first frame of several",) if several and image.format != "MPO" else ()
    bare = not several and image.format != "TIFF"
    size = image.size
    if reduced:
        image.draft(None, _fit(size, settings.max_size))
    image.load()
    exif = _read_exif(image)
    dpi = _read_dpi(image, exif)
    kept = read_metadata(image) if metadata else None
    turn = _TURNS.get(exif.get(ExifTags.Base.Orientation, 1))
    if turn is not None:
        image = image.transpose(turn)
        if turn in _SIDEWAYS:
            size = size[::-1]
            dpi = dpi[::-1] if dpi else None
    rgb, alpha, icc = to_rgb(image, _read_icc(image))
    if rgb is image and not bare:
        # Pillow's writers would go back to the file for its other frames and its tags.
        rgb = image.copy()
    # They would copy what it says into the output: the orientation, an RGB photo's CMYK profile.
    rgb.info = {}
    working = _shrink(rgb, alpha, _fit(size, settings.max_size))
    return Photo(rgb, alpha, size, working, icc, dpi, notes, kept)


def _check_size(image: Image.Image, settings: ReadSettings, name: str) -> None:
    width, height = image.size
    if not width * height:
        raise UnreadableError(f"{name}: {width} x {height} holds no pixels")
    if width * height > settings.max_pixels:
        raise TooLargeError(
            f"{name}: {width} x {height} is more than {settings.max_pixels:,} pixels; "
            "raise --max-pixels if you trust it"
        )


def _identify(stream: BinaryIO) -> Image.Image:
    """Open a picture, not yet decoded. Raises UnidentifiedImageError, and what plugins raise."""
    # These five formats are nearly all there is; to load the others' plugins takes as long as to
    # decode a photo for the web.
    Image.preinit()
    try:
        return Image.open(stream, formats=_loaded_formats())
    except UnidentifiedImageError:
        Image.init()
        _register_heif()
        stream.seek(0)
        return Image.open(stream, formats=_loaded_formats())


def _loaded_formats() -> tuple[str, ...]:
    return tuple(name for name in READ_FORMATS if name in Image.OPEN)


def _register_heif() -> None:
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _open(stream: BinaryIO, name: str) -> Image.Image:
    try:
        return _identify(stream)
    except UnidentifiedImageError as error:
        raise UnreadableError(_explain_unidentified(stream, name)) from error


def _explain_unidentified(stream: BinaryIO, name: str) -> str:
    stream.seek(0)
    head = stream.read(16)
    if not head:
        return f"{name}: is empty (0 bytes)"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return f"{name}: HEIC needs an extra package; run: {install_hint('heif')}"
    for file_format in _loaded_formats():
        _, accept = Image.OPEN[file_format]
        if accept and accept(head) is True:
            return f"{name}: damaged or truncated {file_format}, or a kind of it bgx cannot read"
    return f"{name}: not a picture bgx can read (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC)"


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return str(error.strerror)  # the system's word on the file
    # Decoders of damaged files raise nearly anything: OSError, SyntaxError, struct.error.
    detail = " ".join(str(error).split()) or type(error).__name__
    return f"damaged or truncated ({detail})"


def _read_exif(image: Image.Image) -> dict[int, Any]:
    """Orientation and resolution, as far as EXIF gives them."""
    tags = ExifTags.Base
    try:
        exif = image.getexif()
        wanted = (tags.Orientation, tags.XResolution, tags.YResolution, tags.ResolutionUnit)
        return {tag: exif[tag] for tag in wanted if tag in exif}
    except Exception as error:  # noqa: BLE001 - broken EXIF says nothing about the pixels
        log.debug("EXIF ignored: %s", error)
        return {}


def _read_dpi(image: Image.Image, exif: dict[int, Any]) -> tuple[float, float] | None:
    """The format's own field, else EXIF's tags, which serve WebP, AVIF and HEIC."""
    tags = ExifTags.Base
    per_unit = {2: 1.0, 3: 2.54}.get(exif.get(tags.ResolutionUnit, 2), 0.0)
    try:
        if "dpi" in image.info:
            x, y = (float(value) for value in image.info["dpi"])
        else:
            x, y = (float(exif[tag]) * per_unit for tag in (tags.XResolution, tags.YResolution))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x <= _MAX_DPI and 1 < y <= _MAX_DPI else None


def _read_icc(image: Image.Image) -> bytes | None:
    """The embedded profile if it is one that describes the picture's kind of numbers."""
    icc = image.info.get("icc_profile")
    if not icc:
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space.strip()
    except (OSError, TypeError) as error:
        log.debug("ICC profile ignored: %s", error)
        return None
    if image.mode == "LAB":
        return None  # the mode says it all
    # An RGB profile describes grey as well: three equal numbers.
    fitting = {"CMYK"} if image.mode == "CMYK" else {"RGB", "GRAY"}
    return icc if space in fitting else None


def _fit(size: tuple[int, int], max_size: int) -> tuple[int, int]:
    """The working image's size: long side at most max_size, never enlarged."""
    scale = min(1.0, max_size / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink(image: Image.Image, alpha: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """The working image."""
    if alpha is not None:
        image = flatten(image, alpha, _HIDDEN)
    # The gap averages whole blocks of pixels first: a quarter of the time, same masks.
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0)
