"""Metadata: results have none of the photo's by default, and all of it on request."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from bgx.image.exif import Exif, with_resolution
from bgx.image.ifd import Structure
from bgx.image.metadata import Metadata, fit_metadata
from bgx.image.read import read_photo
from bgx.settings import FORMATS, ReadSettings
from support.pictures import encode, encode_file, quarters
from support.tiffs import Variety, join_pages, pack_values, page_tags, write_exif

if TYPE_CHECKING:
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
    artist = (315, 2, b"somebody\0")
    exif = write_exif([artist], following=[(0x0201, 4, [0]), (0x0202, 4, [len(thumbnail)])])
    photo = _jpeg(exif + thumbnail)
    assert thumbnail in photo
    kept = _read(photo).exif
    assert kept is not None
    assert b"somebody" in kept
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


# Byte by byte ------------------------------------------------------------------------------------

_TEXTS = {
    "UTF-8": "Jörg Müller".encode() + b"\0",
    "Latin-1": "Jörg Müller".encode("latin-1") + b"\0",
    "Shift-JIS": "山田太郎".encode("shift-jis") + b"\0",
    "Cyrillic": "Иван Петров".encode("cp1251") + b"\0",
    "several": b"photographer\0editor\0",
    "no end": "Müller und Töchter".encode(),
}
_COMMENT = b"UNICODE\0" + "日本語の説明".encode("utf-16-le")


def _jpeg(exif: bytes, xmp: bytes = b"") -> bytes:
    return encode(quarters(), "JPEG", exif=b"Exif\0\0" + exif, **({"xmp": xmp} if xmp else {}))


def _keep(photo: bytes, file_format: Format) -> tuple[bytes, tuple[str, ...]]:
    """What is written of it, and all notes."""
    read = read_photo(photo, ReadSettings(), name="photo", metadata=True)
    fitting, notes = fit_metadata(read.metadata, file_format)
    data = encode_file(read.image, file_format, name="out", metadata=fitting, dpi=(300, 300))
    return data, (*read.notes, *notes)


def _tags(data: bytes) -> tuple[Structure, dict[int, bytes]]:
    """EXIF's structure in a file and the bytes of all values in it, of all directories."""
    with Image.open(io.BytesIO(data)) as opened:
        exif = opened.info.get("exif", data)
    structure = Structure(io.BytesIO(exif.removeprefix(b"Exif\0\0")))
    found = {}
    for place in (structure.first, None, None):
        at = place
        if at is None:
            pointers = [tag for tag in (0x8769, 0x8825) if isinstance(found.get(tag), bytes)]
            if not pointers:
                break
            order = "little" if structure.order == "<" else "big"
            at = int.from_bytes(found.pop(pointers[0]), order)  # type: ignore[arg-type]
        directory = structure.directory(at)
        assert not directory.odd
        found |= {tag: structure.raw(entry) for tag, entry in directory.entries.items()}
    return structure, found


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("alphabet", _TEXTS)
@pytest.mark.parametrize("file_format", FORMATS)
def test_text_of_any_alphabet_stays_equal_to_the_byte(
    file_format: Format, alphabet: str, order: str
) -> None:
    text = _TEXTS[alphabet]
    exif = write_exif(
        [(315, 2, text), (0x9C9B, 1, "Grüße".encode("utf-16-le"))],
        details=[(0x9286, 7, _COMMENT), (0x8827, 3, [400])],
        place=[(2, 5, [(48, 1), (8, 1), (7, 3)])],
        order=order,
    )
    data, notes = _keep(_jpeg(exif), file_format)
    assert notes == ()
    structure, tags = _tags(data)
    assert tags[315] == text
    assert tags[0x9C9B] == "Grüße".encode("utf-16-le")
    assert tags[0x9286] == _COMMENT
    number = pack_values(3, [400], structure.order)
    assert tags[0x8827] == number
    assert tags[2] == pack_values(5, [(48, 1), (8, 1), (7, 3)], structure.order)


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_exif_says_of_the_old_file_s_colours_is_left_out(file_format: Format) -> None:
    """They may have been converted, and the result's own profile tells what they are."""
    white, curve = (0x013E, 5, [(3127, 10000), (3290, 10000)]), (0x012D, 3, list(range(768)))
    colours = [(0xA001, 3, [65535]), (0xA500, 5, [(22, 10)])]
    exif = write_exif([(315, 2, b"somebody\0"), white, curve], details=[*colours])
    data, _ = _keep(_jpeg(exif), file_format)
    _, tags = _tags(data)
    assert tags[315] == b"somebody\0"
    assert not {0x013E, 0x012D, 0xA001, 0xA500} & tags.keys()


@pytest.mark.filterwarnings("ignore:Tag data larger", "ignore:Corrupt EXIF")
@pytest.mark.parametrize("file_format", FORMATS)
def test_one_odd_tag_does_not_cost_the_others(file_format: Format) -> None:
    exif = bytearray(write_exif([(315, 2, b"somebody\0"), (50750, 4, [1]), (50801, 4, [2])]))
    # One of a type that does not exist, one whose value lies beyond the end.
    at = exif.index((50750).to_bytes(2, "little"))
    exif[at + 2 : at + 4] = (99).to_bytes(2, "little")
    at = exif.index((50801).to_bytes(2, "little"))
    exif[at + 4 : at + 12] = (5000).to_bytes(4, "little") + (9).to_bytes(4, "little")
    data, notes = _keep(_jpeg(bytes(exif)), file_format)
    assert _tags(data)[1][315] == b"somebody\0"
    assert notes == ("damaged values of EXIF left out",)


def test_exif_without_its_details_is_said() -> None:
    exif = bytearray(write_exif([(315, 2, b"somebody\0")], details=[(0x8827, 3, [400])]))
    at = exif.index((0x8769).to_bytes(2, "little"))
    exif[at + 8 : at + 12] = (65000).to_bytes(4, "little")
    data, notes = _keep(_jpeg(bytes(exif)), "png")
    assert _tags(data)[1][315] == b"somebody\0"
    assert notes == ("a damaged part of EXIF left out",)


# Copies of the photo ------------------------------------------------------------------------------

_SMALL = encode(quarters(size=(16, 12)), "JPEG")


def test_a_maker_s_note_keeps_its_place() -> None:
    """Its offsets count from EXIF's beginning."""
    note = b"CAMERA\0\1" + bytes(range(200))
    exif = write_exif(
        [(315, 2, b"somebody else\0"), (0x0111, 4, [7])],
        details=[(0x927C, 7, note), (0x9286, 7, _COMMENT)],
    )
    for file_format in ("jpg", "png", "webp", "avif"):
        data, notes = _keep(_jpeg(exif), file_format)  # type: ignore[arg-type]
        assert notes == ()
        with Image.open(io.BytesIO(data)) as opened:
            kept = opened.info["exif"].removeprefix(b"Exif\0\0")
        assert kept.index(note) == exif.index(note)
        assert _tags(data)[1][315] == b"somebody else\0"


@pytest.mark.parametrize("picture", [_SMALL, b"\x02" + _SMALL[1:], encode(quarters(), "PNG")])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_maker_s_note_with_a_preview_is_left_out(picture: bytes, file_format: Format) -> None:
    exif = write_exif([(315, 2, b"somebody\0")], details=[(0x927C, 7, b"OLYMP\0\1\0" + picture)])
    data, notes = _keep(_jpeg(exif), file_format)
    assert picture[-30:] not in data
    assert _tags(data)[1][315] == b"somebody\0"
    assert notes == ("the maker's note left out: it holds a copy of the photo",)


@pytest.mark.parametrize("tag", [0x8649, 0x935C, 50341, 65000])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_tiff_s_layers_and_previews_are_left_out(tag: int, file_format: Format) -> None:
    block = b"Adobe Photoshop Document Data Block\0LAYERS" + bytes(range(256)) * 300 + _SMALL
    below = page_tags(np.asarray(quarters(size=(16, 12))), Variety(more=((254, 4, [1]),)))
    more = ((tag, 7, block), (315, 2, b"somebody\0"), (33723, 7, b"\x1c\x02\x78\0\3abc"))
    photo = join_pages(
        [page_tags(np.asarray(quarters()), Variety(more=more))], children={0: [below]}
    )
    data, notes = _keep(photo, file_format)
    assert b"LAYERS" not in data
    assert len(data) < 30_000
    _, tags = _tags(data)
    assert tags[315] == b"somebody\0"
    assert tags[33723] == b"\x1c\x02\x78\0\3abc"
    assert 330 not in tags
    assert len(notes) == 1
    assert "left out" in notes[0]


def _xmp(inside: bytes, attributes: bytes = b"") -> bytes:
    return (
        b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        b'xmlns:g="http://ns.adobe.com/xap/1.0/g/img/" '
        b'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        b'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" '
        b'xmlns:gain="http://ns.adobe.com/hdr-gain-map/1.0/" '
        b'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" dc:creator="J\xc3\xb6rg &amp; Co"'
        + attributes
        + b"><dc:title>Sh\xc3\xb6e</dc:title>"
        + inside
        + b"</rdf:Description></rdf:RDF></x:xmpmeta>\n"
        + b" " * 100
        + b'<?xpacket end="w"?>'
    )


_BASE64 = base64.b64encode(_SMALL)
_LINES = b"&#xA;".join(_BASE64[at : at + 76] for at in range(0, len(_BASE64), 76))

COPIES = {
    "thumbnails": _xmp(
        b"<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType='Resource'><g:image>"
        + _LINES
        + b"</g:image></rdf:li></rdf:Alt></xmp:Thumbnails>"
    ),
    "a depth map as an attribute": _xmp(b"", b" GDepth:Data='" + _BASE64 + b"'"),
    "a depth map as an element": _xmp(b"<GDepth:Data>" + _BASE64 + b"</GDepth:Data>"),
    "a gain map's description": _xmp(
        b"<gain:GainMapMax><rdf:Seq><rdf:li>1.5</rdf:li></rdf:Seq></gain:GainMapMax><gain:Empty/>",
        b' gain:Version="1.0" gain:GainMapMin = "0"',
    ),
    "a picture under a name nobody knows": _xmp(b"<dc:source>" + _BASE64 + b"</dc:source>"),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("file_format", FORMATS)
def test_xmp_s_copies_of_the_photo_are_cut_out(kind: str, file_format: Format) -> None:
    photo = encode(quarters(), "JPEG", xmp=COPIES[kind])
    data, notes = _keep(photo, file_format)
    assert _read(data).xmp == _xmp(b"") or kind.startswith("thumbnails")
    for gone in (b"Thumbnails", b"GDepth:Data", b"gain:", _BASE64[:60]):
        assert gone not in data.replace(b"xmlns:gain", b"")
    assert "Jörg &amp; Co".encode() in data
    assert notes == ("copies of the photo left out of its XMP",)


def test_an_attribute_is_cut_out_of_xmp_and_not_what_looks_like_it() -> None:
    kept = b""" dc:rights=" gain:Version='1.0'\""""
    photo = encode(quarters(), "JPEG", xmp=_xmp(b"", kept + b' gain:Version="1.0"'))
    read = read_photo(photo, ReadSettings(), name="photo", metadata=True)
    assert read.metadata is not None
    assert read.metadata.xmp == _xmp(b"", kept)


def test_xmp_that_continues_elsewhere_says_so_no_longer() -> None:
    photo = encode(quarters(), "JPEG", xmp=_xmp(b"", b' xmpNote:HasExtendedXMP="0123"'))
    read = read_photo(photo, ReadSettings(), name="photo", metadata=True)
    assert read.metadata is not None
    assert read.metadata.xmp == _xmp(b"")
    assert read.notes == ("extended XMP left out",)


@pytest.mark.parametrize(
    "packet",
    [b"<x:xmpmeta><unclosed>", b"no XMP", "<x:xmpmeta/>".encode("utf-16"), b"<!DOCTYPE a><a/>"],
)
def test_xmp_that_cannot_be_read_is_left_out(packet: bytes) -> None:
    photo = encode(quarters(), "JPEG", xmp=packet)
    read = read_photo(photo, ReadSettings(), name="photo", metadata=True)
    assert read.metadata == Metadata()
    assert read.notes == ("XMP left out: it cannot be read",)


# Too large ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
def test_metadata_too_large_for_the_format_is_left_out(file_format: Format) -> None:
    title = b"<dc:description>" + b"x" * 70_000 + b"</dc:description>"
    exif = write_exif([(315, 2, b"a" * 70_000)])
    photo = encode(quarters(), "WEBP", xmp=_xmp(title), exif=exif)
    data, notes = _keep(photo, file_format)
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
    if file_format == "jpg":
        assert notes == (
            "EXIF left out: too large for a JPEG",
            "XMP left out: too large for a JPEG",
        )
    else:
        assert notes == ()
        assert b"x" * 70_000 in data
        assert b"a" * 70_000 in data


def test_the_rest_stays_where_the_maker_s_note_alone_is_too_large() -> None:
    exif = write_exif([(315, 2, b"somebody\0")], details=[(0x927C, 7, b"z" * 70_000)])
    data, notes = _keep(encode(quarters(), "PNG", exif=exif), "jpg")
    assert _tags(data)[1][315] == b"somebody\0"
    assert notes == ("the maker's note left out: it does not fit into a JPEG",)


def test_a_tiff_keeps_a_maker_s_note_of_its_own_byte_order() -> None:
    for order, kept in (("<", True), (">", False)):
        exif = write_exif(
            [(315, 2, b"somebody\0")], details=[(0x927C, 7, b"CAMERA" * 9)], order=order
        )
        data, notes = _keep(_jpeg(exif), "tiff")
        assert (b"CAMERA" * 9 in data) == kept
        assert _tags(data)[1][315] == b"somebody\0"
        assert notes == (
            () if kept else ("the maker's note left out: it does not fit into a TIFF",)
        )


_EXIF = write_exif(
    [(271, 2, b"Camera works\0"), (274, 3, [6]), (282, 5, [(300, 1)]), (283, 5, [(300, 1)])],
    details=[(0x927C, 7, b"CAMERA\0\1" * 5), (0x9286, 7, _COMMENT), (0xA005, 4, [30])],
    place=[(2, 5, [(48, 1), (8, 1), (7, 3)])],
    following=[(0x0201, 4, [0]), (0x0202, 4, [9])],
)


@given(
    flips=st.lists(
        st.tuples(st.integers(0, len(_EXIF) - 1), st.integers(1, 255)), min_size=0, max_size=8
    ),
    length=st.integers(0, len(_EXIF)),
)
def test_whatever_exif_there_is_what_is_written_is_sound(
    flips: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(_EXIF)
    for at, change in flips:
        data[at] ^= change
    exif = Exif.parse(bytes(data[:length]))
    if exif is None:
        return
    assert exif.orientation is None or isinstance(exif.orientation, int)
    kept, _ = exif.rewrite()
    resolved = with_resolution(kept, (300.0, 150.0))
    again = Exif.parse(resolved)
    assert again is not None
    assert again.dpi == (300.0, 150.0)
    assert again.orientation is None
    assert again.rewrite() == (resolved, [])
