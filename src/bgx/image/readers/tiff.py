"""Reads TIFF: chooses the page that is the photo, and how it is decoded.

A TIFF can hold thumbnails, masks, pyramids, several photos, and a camera's raw data. Pillow and
libtiff decode what they are known to decode correctly: plain 8-bit samples, and codecs that have
their own libraries. Other kinds are decoded by :mod:`bgx.image.readers.tiff_pixels`; what that does
not support either is refused with a message that describes it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image, UnidentifiedImageError

from bgx.image.exif import Exif
from bgx.image.identify import RAW_REMEDY, is_raw_name
from bgx.image.ifd import DamagedError, Directory, Structure
from bgx.image.readers.base import Decoded, NotReadError
from bgx.image.readers.jpeg import check_jpeg
from bgx.image.readers.tiff_pixels import BYTEWISE, Page, Tag, check_chunks, read_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType."""

_OLD_REDUCED = 2
"""Value of SubfileType."""

_DNG_VERSION, _CFA_DIMENSIONS, _CFA_PATTERN, _MAKER_DATA = 50706, 33421, 33422, 50740
_SENSOR_DATA = {32803, 34892}
"""Photometric interpretations: colour filter array, linear raw."""
_RAW_COMPRESSIONS = {32767, 32769, 32770, 34713, 65000, 65535}
"""Sony, Epson and Samsung, Samsung, Nikon, Kodak, Pentax."""

_JPEG = 7
_CODEC_BITS = {2: 1, 3: 1, 4: 1, 6: 8, _JPEG: 8}
"""Bits per sample that Pillow and libtiff support, for compressions that are codecs of their own:
three of CCITT, old and new JPEG."""

_PLAIN = {(1, 1, ()), (1, 2, (2,)), (2, 3, ()), (2, 4, (1,)), (2, 4, (2,))}
"""Photometric interpretation (grey, RGB), samples per pixel, and kind of the extra samples: none,
premultiplied alpha (1) or straight alpha (2)."""

_SEVERAL = "first frame of several"
_PASSED_OVER = "ignored a reduced image in front of the photo"


class TiffReader:
    """See :class:`bgx.image.readers.base.Reader`. name: its suffix may be that of a raw file."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._structure = Structure(stream)
        if is_raw_name(name) or _is_raw(self._structure):
            raise NotReadError(f"is a camera's raw file; {RAW_REMEDY}")
        self._page, self._notes = _choose_page(self._structure)
        self.size = self._page.size

    @property
    def orientation(self) -> int:
        return self._page.orientation

    def decode(self, least: tuple[int, int] | None) -> Decoded:
        page = self._page
        chunks = check_chunks(page)
        if page.compression == _JPEG and page.bits == 8 and page.samples != 2:
            _check_jpegs(page, chunks)
        if _is_plain(page) or _has_codec(page):
            decoded = self._decode_by_pillow()
        else:
            decoded = read_pixels(page)
        decoded.exif = Exif(self._structure, page.directory)
        decoded.icc = page.raw(Tag.ICC)
        decoded.xmp = page.raw(Tag.XMP)
        decoded.notes = [*self._notes, *decoded.notes]
        return decoded

    def _decode_by_pillow(self) -> Decoded:
        page = self._page
        try:
            image = Image.open(self._stream_from(page.directory), formats=("TIFF",))
        except UnidentifiedImageError as error:
            raise NotReadError(f"is a TIFF that bgx cannot read: {page.describe()}") from error
        # Otherwise Pillow would turn the picture upright while loading it.
        image.getexif().pop(Tag.ORIENTATION, None)
        image.load()
        # A copy, because Pillow's writers would use the file's other pages and tags.
        return Decoded(image.copy(), orientation=page.orientation)

    def _stream_from(self, directory: Directory) -> BinaryIO:
        """The file, changed so that its first page is this one."""
        structure = self._structure
        if directory.at == structure.first:
            self._stream.seek(0)
            return self._stream
        self._stream.seek(0)
        data = bytearray(self._stream.read())
        at, size = (8, 8) if structure.big else (4, 4)
        order = "little" if structure.order == "<" else "big"
        data[at : at + size] = directory.at.to_bytes(size, order)  # type: ignore[arg-type]
        return io.BytesIO(data)


def _pages(structure: Structure) -> Iterator[Page]:
    return (Page(structure, directory) for directory in structure.chain())


def _sub_pages(page: Page) -> Iterator[Page]:
    """The sub-IFDs of a page; damaged ones are left out."""
    for at in page.numbers(Tag.SUB_IFDS):
        try:
            yield Page(page.structure, page.structure.directory(at))
        except DamagedError:
            continue


def _is_raw(structure: Structure) -> bool:
    """Whether the tags are those of a camera's raw file, whose first page is a preview."""
    first = next(_pages(structure), None)
    if first is None:
        return False
    if _DNG_VERSION in first.directory.entries or _MAKER_DATA in first.directory.entries:
        return True
    return any(_holds_sensor_data(page) for page in _with_sub_pages(_pages(structure)))


def _with_sub_pages(pages: Iterable[Page]) -> Iterator[Page]:
    for page in pages:
        yield page
        yield from _sub_pages(page)


def _holds_sensor_data(page: Page) -> bool:
    return (
        page.photometric in _SENSOR_DATA
        or page.compression in _RAW_COMPRESSIONS
        or _CFA_DIMENSIONS in page.directory.entries
        or _CFA_PATTERN in page.directory.entries
    )


def _is_reduced(page: Page) -> bool:
    return bool(page.number(Tag.NEW_SUBFILE_TYPE, 0) & _REDUCED) or (
        page.number(Tag.SUBFILE_TYPE, 0) == _OLD_REDUCED
    )


def _is_mask(page: Page) -> bool:
    return bool(page.number(Tag.NEW_SUBFILE_TYPE, 0) & _MASK) or page.photometric == _MASK


def _choose_page(structure: Structure) -> tuple[Page, list[str]]:
    """The page that is the photo, and notes. Raises DamagedError; NotReadError if there is none."""
    pages = list(_pages(structure))
    if not pages:
        raise DamagedError("holds no picture")
    first = pages[0]
    below = [page for page in _sub_pages(first) if _is_photo(page)]
    if _is_photo(first):
        larger = [page for page in below if page.pixels > first.pixels]
        if larger:
            return max(larger, key=lambda page: page.pixels), [_PASSED_OVER]
        several = sum(map(_is_photo, pages)) > 1
        return first, [_SEVERAL] if several else []
    photos = [*below, *filter(_is_photo, pages)]
    if photos:
        return photos[0], [_PASSED_OVER]
    if _is_mask(first):
        raise NotReadError("is a TIFF with a mask and no photo")
    return first, ["the file's only page is marked as a reduced image"]


def _is_photo(page: Page) -> bool:
    return not _is_reduced(page) and not _is_mask(page)


def _is_plain(page: Page) -> bool:
    """Whether Pillow decodes the samples correctly, with any of the BYTEWISE compressions."""
    structure = page.structure
    return (
        page.bits == 8
        and page.compression in BYTEWISE
        and not (structure.big and structure.order == ">")
        and page.sample_format == 1
        and page.planar == 1
        and page.predictor in {1, 2}
        and page.fill_order == 1
        and page.is_flat
        and (page.photometric, page.samples, page.extra_samples) in _PLAIN
    )


def _check_jpegs(page: Page, chunks: Iterable[bytes]) -> None:
    """Raise DamagedError if a strip or tile is damaged, which libtiff does not report."""
    components = page.samples if page.planar == 1 else 1
    tables = page.raw(Tag.JPEG_TABLES)
    for chunk in chunks:
        # The tables without their end marker, and the picture without its start marker.
        whole = tables[:-2] + chunk[2:] if tables else chunk
        check_jpeg(whole, components)


def _has_codec(page: Page) -> bool:
    """Whether the compression is a codec of its own, which libtiff and Pillow decode."""
    return page.planar == 1 and page.bits == _CODEC_BITS.get(page.compression)
