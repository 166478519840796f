"""What a file says beside its pixels: nothing of the photo's by default, all of it when asked."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import ExifTags, Image

from bgx.image.read import read_photo
from bgx.settings import FORMATS, ReadSettings
from support.pictures import encode, encode_file, quarters

if TYPE_CHECKING:
    from bgx.image.metadata import Metadata
    from bgx.settings import Format

_BASE, _GPS = ExifTags.Base, ExifTags.GPS
_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" '
    b'dc:creator="somebody"/><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
)


def _photo(file_format: str = "JPEG") -> bytes:
    tags = Image.Exif()
    tags[_BASE.Make], tags[_BASE.Artist] = "Camera works", "somebody"
    tags[_BASE.Orientation] = 6
    details = tags.get_ifd(ExifTags.IFD.Exif)
    details[_BASE.BodySerialNumber] = "1234567"
    details[_BASE.ExifImageWidth] = details[_BASE.ExifImageHeight] = 4321
    tags.get_ifd(ExifTags.IFD.GPSInfo)[_GPS.GPSLatitude] = (48.0, 8.0, 0.0)
    return encode(quarters(), file_format, exif=tags.tobytes(), xmp=_XMP)


def _read(data: bytes) -> Metadata:
    metadata = read_photo(data, ReadSettings(), name="photo", metadata=True).metadata
    assert metadata is not None
    return metadata


def test_it_is_not_even_read_unless_asked_for() -> None:
    assert read_photo(_photo(), ReadSettings(), name="photo").metadata is None


@pytest.mark.parametrize("png_level", ["fast", "small"])
@pytest.mark.parametrize("dpi", [None, (300, 150)])
@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_keeps_it(
    file_format: Format, dpi: tuple[float, float], png_level: str
) -> None:
    picture = Image.new("RGB", (40, 30), "red")
    data = encode_file(
        picture,
        file_format,
        name="out",
        dpi=dpi,
        metadata=_read(_photo()),
        png_level="small" if png_level == "small" else "fast",
    )
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        assert opened.size == (40, 30)
        tags = opened.getexif()
        assert tags[_BASE.Artist] == "somebody"
        assert tags.get(_BASE.Orientation, 1) == 1
        xmp = opened.info.get("xmp") or opened.info["XML:com.adobe.xmp"]
        assert xmp == _XMP.replace(b"6", b"1")
        if file_format == "tiff":
            return  # which has the first directory alone
        details = tags.get_ifd(ExifTags.IFD.Exif)
        assert details[_BASE.BodySerialNumber] == "1234567"
        assert _BASE.ExifImageWidth not in details
        assert tags.get_ifd(ExifTags.IFD.GPSInfo)[_GPS.GPSLatitude] == (48.0, 8.0, 0.0)


@pytest.mark.parametrize("file_format", FORMATS)
def test_nothing_is_kept_by_default(file_format: Format) -> None:
    photo = read_photo(_photo(), ReadSettings(), name="photo")
    data = encode_file(photo.image, file_format, name="out", icc=photo.icc, dpi=photo.dpi)
    for secret in (b"1234567", b"somebody", b"Camera works", b"xmpmeta"):
        assert secret in _photo()
        assert secret not in data
    with Image.open(io.BytesIO(data)) as opened:
        assert not opened.getexif().get_ifd(ExifTags.IFD.GPSInfo)


def test_no_thumbnail_shows_the_background_that_was_removed() -> None:
    thumbnail = encode(quarters(size=(16, 12)), "JPEG")
    # A second directory after the first, as cameras write it.
    first = bytes.fromhex("4d4d002a 00000008 0001 0112 0003 00000001 00060000 0000001a")
    second = bytes.fromhex("0002 0201 0004 00000001 00000038 0202 0004 00000001")
    second += len(thumbnail).to_bytes(4, "big") + bytes(4)
    exif = b"Exif\0\0" + first + second + thumbnail
    photo = encode(quarters(), "JPEG", exif=exif)
    assert thumbnail in photo
    kept = _read(photo).exif
    assert kept is not None
    assert thumbnail[-40:] not in kept


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_left_out() -> None:
    photo = encode(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05garbage")
    data = encode_file(Image.new("RGB", (9, 9)), "webp", name="out", metadata=_read(photo))
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == (9, 9)


def test_a_tiffs_tags_for_its_pixels_are_not_kept() -> None:
    tags = Image.Exif()
    tags[_BASE.Artist] = "somebody"
    photo = encode(quarters(size=(64, 48)), "TIFF", exif=tags, compression="tiff_lzw")
    for file_format in FORMATS:
        data = encode_file(
            Image.new("RGBA" if file_format == "tiff" else "RGB", (30, 20)),
            file_format,
            name="out",
            metadata=_read(photo),
        )
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            assert opened.size == (30, 20)
            assert opened.getexif()[_BASE.Artist] == "somebody"
