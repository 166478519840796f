"""Decodes an open file into a :class:`Photo`.

Pictures are untrusted input: only the supported formats are tried (Pillow would pass EPS to
Ghostscript), the size is checked before anything is decoded, and whatever a decoder raises becomes
a :class:`~bgx.errors.PictureError` that names the file.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from PIL import Image, ImageCms, _imaging

from bgx.errors import PictureError, TooLargeError, UnreadableError
from bgx.image.compose import flatten
from bgx.image.identify import HEAD, RAW_REMEDY, identify, name_unread
from bgx.image.readers.base import NotReadError
from bgx.image.readers.pillow import PillowReader
from bgx.image.rgb import to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from bgx.image.metadata import Metadata
    from bgx.image.readers.base import Decoded, Reader
    from bgx.image.tiles import Box
    from bgx.settings import ReadSettings

log = logging.getLogger(__name__)

Picture = Path | bytes | BinaryIO | Image.Image
"""What a photo can be read from: a path, a file's bytes, a seekable stream or a Pillow image."""

_copying = [threading.Lock() for _ in range(61)]
"""Held while one of the caller's images is copied; always the same one for the same image."""

_MAX_DPI = 65535
"""Highest resolution that a JPEG can have. One of 1 or less means that the writer knew none."""

# Pixels hidden under the photo's own alpha must not reach the network. Mid-grey leaves white
# products and black ones both visible against it.
_HIDDEN = (128, 128, 128)

_COLOURED = {"RGB", "RGBA", "P"}

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


class Photo(NamedTuple):
    """A decoded picture, upright.

    image: mode RGB, without metadata and independent of the file. alpha: mode L, same size; None if
    the file had none or an opaque one. size: width and height of the photo, and of the image unless
    it was decoded at a reduced size. working: the working image, mode RGB, long side at most
    ``ReadSettings.max_size``; the network's input is made of it. icc: RGB profile of ``image``.
    dpi: horizontal, vertical. notes: remarks on the file for the report. metadata: EXIF and XMP, if
    requested. damaged: some pixels are missing or wrong; a note tells which.
    """

    image: Image.Image
    alpha: Image.Image | None
    size: tuple[int, int]
    working: Image.Image
    icc: bytes | None
    dpi: tuple[float, float] | None
    notes: tuple[str, ...] = ()
    metadata: Metadata | None = None
    damaged: bool = False


def prepare_process() -> None:
    """Change global settings of Pillow, for the commands; bgx as a library leaves them alone.

    Only ``ReadSettings.max_pixels`` limits the size of pictures then, and only bgx's own errors
    report what is wrong with a file: Pillow's warnings and log and libtiff's messages are silenced.
    """
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(AttributeError, OSError):  # where libtiff does not export it
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


class OpenedPhoto:
    """A picture of which only the header has been read.

    size: width and height as stored, before the picture is turned upright. Made by
    :func:`open_photo`; valid only inside its ``with`` block.
    """

    def __init__(self, reader: Reader, settings: ReadSettings, *, name: str) -> None:
        self.size = reader.size
        self._reader = reader
        self._settings = settings
        self._name = name

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the picture is turned upright, if the header tells how."""
        width, height = self.size
        turn = _TURNS.get(self._reader.orientation)
        return (height, width) if turn in _SIDEWAYS else (width, height)

    def decode(self, *, metadata: bool = False, reduced: bool = False) -> Photo:
        """The photo. May be called once.

        metadata: read EXIF and XMP too. reduced: only the working image is needed; a JPEG is
        decoded at a reduced size, in half the time. Raises UnreadableError (truncated, damaged,
        unsupported kind) and TooLargeError (too large for the memory).
        """
        with _one_line(self._name):
            least = working_size(self.size, self._settings.max_size) if reduced else None
            decoded = self._reader.decode(least)
            return _make_photo(decoded, self.size, self._settings, metadata=metadata)


@contextlib.contextmanager
def open_photo(
    source: BinaryIO | Image.Image, settings: ReadSettings, *, name: str
) -> Iterator[OpenedPhoto]:
    """Open a picture and read its header; inside the ``with`` block it can be decoded.

    source: a seekable stream, read from its start and left open, or a Pillow image, which is not
    changed. name: for messages; its suffix helps to recognise raw files of cameras. Raises
    UnreadableError (empty, not a picture, unsupported kind) and TooLargeError (more than
    ``settings.max_pixels``).
    """
    with _one_line(name):
        if isinstance(source, Image.Image):
            _check_size(source.size, settings, name)  # before it is copied
        reader = _open(source, name)
        _check_size(reader.size, settings, name)
    yield OpenedPhoto(reader, settings, name=name)


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


def crop_photo(photo: Photo, box: Box, settings: ReadSettings) -> Photo:
    """A part of a photo as if it had been a file of its own: with a working image made anew.

    photo: read in full, not reduced. box: within it.
    """
    image = photo.image.crop(box)
    alpha = _drop_opaque(photo.alpha and photo.alpha.crop(box))
    working = _shrink(image, alpha, working_size(image.size, settings.max_size))
    return photo._replace(image=image, alpha=alpha, size=image.size, working=working)


def _open_source(source: Path | bytes | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """A seekable stream; closing it leaves the caller's own stream open."""
    match source:
        case Path():
            stream: BinaryIO = source.open("rb")
            if stream.seekable():
                return stream
            with stream:  # a named pipe
                return io.BytesIO(stream.read())
        case bytes():
            return io.BytesIO(source)
        case _:
            return contextlib.nullcontext(source)


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a PictureError with a message of one line."""
    try:
        yield
    except PictureError:
        raise
    except NotReadError as error:
        raise UnreadableError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(
            f"{name}: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows; raise it if you trust it"
        ) from error
    except MemoryError as error:
        raise TooLargeError(f"{name}: too large to decode in memory; scale it down") from error
    except Exception as error:
        raise UnreadableError(f"{name}: cannot be read: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return str(error.strerror)  # the system's own reason
    # Decoders of damaged files raise nearly anything: OSError, SyntaxError, struct.error.
    detail = " ".join(str(error).split()) or type(error).__name__
    return f"damaged or truncated ({detail})"


def _open(source: BinaryIO | Image.Image, name: str) -> Reader:
    if isinstance(source, Image.Image):
        # Copying loads the pixels, and Pillow does not expect several threads to do so at once.
        with _copying[id(source) // 64 % len(_copying)]:
            return PillowReader(source.copy())
    source.seek(0)
    head = source.read(HEAD)
    source.seek(0)
    # Each format's module is imported when its first file comes.
    match identify(head):
        case "":
            raise NotReadError(_explain_unidentified(head))
        case "RAW":
            raise NotReadError(f"is a camera's raw file; {RAW_REMEDY}")
        case "JPEG":
            from bgx.image.readers.jpeg import JpegReader

            return JpegReader(source)
        case "PNG":
            from bgx.image.readers.png import PngReader

            return PngReader(source)
        case "TIFF":
            from bgx.image.readers.tiff import TiffReader

            return TiffReader(source, name)
        case "BMP":
            from bgx.image.readers.bmp import BmpReader

            return BmpReader(source)
        case "WEBP":
            from bgx.image.readers.webp import WebpReader

            return WebpReader(source)
        case "GIF":
            from bgx.image.readers.gif import GifReader

            return GifReader(source)
        case "AVIF" | "HEIF" as file_format:
            from bgx.image.readers.boxes import BoxReader

            return BoxReader(source, file_format)
    raise AssertionError(head)


def _explain_unidentified(head: bytes) -> str:
    if not head:
        return "is empty (0 bytes)"
    readable = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC"
    kind = name_unread(head)
    if kind:
        return f"is {kind}, which bgx does not read; save it as one of {readable}"
    return f"not a picture bgx can read ({readable})"


def _make_photo(
    decoded: Decoded, size: tuple[int, int], settings: ReadSettings, *, metadata: bool
) -> Photo:
    """Make a photo of the decoded image, which may be changed. size: as stored, not reduced."""
    image, alpha = decoded.image, decoded.alpha
    # The format's own field, else EXIF's tags, which serve formats that have none.
    dpi = decoded.dpi or (decoded.exif.dpi if decoded.exif else None)
    turn = _TURNS.get(decoded.orientation)
    if turn is not None:
        image = image.transpose(turn)
        alpha = alpha and alpha.transpose(turn)
        if turn in _SIDEWAYS:
            size = size[::-1]
            dpi = dpi and dpi[::-1]
    rgb, own_alpha, icc = to_rgb(image, _fitting_profile(image, _find_profile(decoded)))
    alpha = _drop_opaque(alpha) or own_alpha
    # Pillow would write entries of `info` into the output, such as the profile of a CMYK original.
    rgb.info = {}
    kept, left_out = _keep_metadata(decoded) if metadata else (None, [])
    working = _shrink(rgb, alpha, working_size(size, settings.max_size))
    notes = (*decoded.notes, *left_out)
    return Photo(rgb, alpha, size, working, icc, _sane_dpi(dpi), notes, kept, decoded.damaged)


def _drop_opaque(alpha: Image.Image | None) -> Image.Image | None:
    return None if alpha is None or alpha.getextrema() == (255, 255) else alpha


def _keep_metadata(decoded: Decoded) -> tuple[Metadata, list[str]]:
    from bgx.image.metadata import clean_metadata

    return clean_metadata(decoded.exif, decoded.xmp)


def _check_size(size: tuple[int, int], settings: ReadSettings, name: str) -> None:
    width, height = size
    if not width * height:
        raise UnreadableError(f"{name}: {width} x {height} holds no pixels")
    if width * height > settings.max_pixels:
        raise TooLargeError(
            f"{name}: {width} x {height} is more than {settings.max_pixels:,} pixels; "
            "scale it down, or raise --max-pixels if you trust it"
        )


def _sane_dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    return dpi if dpi and all(1 < value <= _MAX_DPI for value in dpi) else None


def _find_profile(decoded: Decoded) -> bytes | None:
    """The embedded profile, or the one that EXIF names where the file says nothing else."""
    named = decoded.exif is not None and decoded.exif.adobe_rgb and not decoded.told
    if decoded.icc is None and named and decoded.image.mode in _COLOURED:
        from bgx.image.readers.cicp import adobe_rgb_profile

        return adobe_rgb_profile()
    return decoded.icc


def _fitting_profile(image: Image.Image, icc: bytes | None) -> bytes | None:
    """The embedded profile, or None if it is not for the picture's colour mode."""
    if not icc:
        return None
    try:
        space = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space.strip()
    except (OSError, TypeError) as error:
        log.debug("ICC profile ignored: %s", error)
        return None
    if image.mode == "LAB":
        return None  # Lab values need no profile
    # An RGB profile describes grey as well: three equal numbers.
    fitting = {"CMYK"} if image.mode == "CMYK" else {"RGB", "GRAY"}
    return icc if space in fitting else None


def working_size(size: tuple[int, int], max_size: int) -> tuple[int, int]:
    """The working image's size: long side at most max_size, never enlarged."""
    scale = min(1.0, max_size / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink(image: Image.Image, alpha: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """The working image."""
    if alpha is not None:
        image = flatten(image, alpha, _HIDDEN)
    # The gap averages whole blocks of pixels first: a quarter of the time, same masks.
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0)
