"""A TIFF may hold many pictures, and none: the photo is found, or the file is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bgx.errors import UnreadableError
from bgx.image.read import read_photo
from bgx.settings import ReadSettings
from support import tiffs
from support.pictures import QUARTERS, difference, encode, quarter_colours, quarters
from support.tiffs import Variety, join_pages, page_tags, replace, write_tiff

if TYPE_CHECKING:
    from bgx.image.read import Photo

PHOTO = np.asarray(quarters())
SMALL = np.full((12, 16, 3), 90, np.uint8)
MASK = np.full((48, 64, 1), 1, np.uint8)

_REDUCED = ((254, tiffs.LONG, [1]),)
_OLD_REDUCED = ((255, tiffs.SHORT, [2]),)
_CFA = ((33421, tiffs.SHORT, [2, 2]), (33422, tiffs.BYTE, [0, 1, 1, 2]))


def read(data: bytes, name: str = "shoe.tif") -> Photo:
    return read_photo(data, ReadSettings(), name=name)


def page(pixels: Any = PHOTO, *more: Any, **variety: Any) -> Any:
    return page_tags(pixels, Variety(more=more, **variety))


def refusal(data: bytes, name: str = "shoe.tif") -> str:
    with pytest.raises(UnreadableError) as caught:
        read(data, name)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert message.isprintable()
    return message


def assert_is_the_photo(photo: Photo) -> None:
    assert photo.size == (64, 48)
    assert quarter_colours(photo.image) == list(QUARTERS)


# Which page -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [_REDUCED, _OLD_REDUCED])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("compression", ["none", "lzw"])
def test_a_reduced_first_page_is_passed_over(
    flag: Any, order: str, big: bool, compression: str
) -> None:
    variety = {"order": order, "compression": compression}
    data = join_pages([page(SMALL, *flag, **variety), page(**variety)], order=order, big=big)
    photo = read(data)
    assert_is_the_photo(photo)
    assert photo.notes == ("ignored a reduced image in front of the photo",)


def test_a_photo_below_its_own_thumbnail_is_found() -> None:
    photo = read(join_pages([page(SMALL, *_REDUCED)], children={0: [page()]}))
    assert_is_the_photo(photo)
    assert photo.notes == ("ignored a reduced image in front of the photo",)
    # Without a flag, the size tells it.
    assert_is_the_photo(read(join_pages([page(SMALL)], children={0: [page()]})))


def test_a_mask_before_the_photo_is_passed_over() -> None:
    mask = page(MASK, (254, tiffs.LONG, [4]), photometric=4, bits=1)
    assert_is_the_photo(read(join_pages([mask, page()])))


def test_a_pyramid_is_one_photo() -> None:
    levels = [page(), page(PHOTO[::2, ::2], *_REDUCED), page(SMALL, *_REDUCED)]
    photo = read(join_pages(levels))
    assert_is_the_photo(photo)
    assert photo.notes == ()
    assert read(join_pages(levels[:1], children={0: levels[1:]})).notes == ()


def test_a_document_s_first_page_is_read_and_said() -> None:
    photo = read(join_pages([page(), page(), page()]))
    assert_is_the_photo(photo)
    assert photo.notes == ("first frame of several",)


def test_a_reduced_image_alone_is_read_and_said() -> None:
    photo = read(join_pages([page(PHOTO, *_REDUCED)]))
    assert_is_the_photo(photo)
    assert photo.notes == ("the file's only page is marked as a reduced image",)


def test_a_mask_alone_is_refused() -> None:
    mask = page(MASK, (254, tiffs.LONG, [4]), photometric=4, bits=1)
    assert "with a mask and no photo" in refusal(join_pages([mask]))


def test_pages_that_lead_back_to_the_first_end() -> None:
    data = bytearray(join_pages([page(), page()]))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    second = int.from_bytes(data[first + 2 + 12 * count :][:4], "little")
    count = int.from_bytes(data[second : second + 2], "little")
    data[second + 2 + 12 * count :][:4] = first.to_bytes(4, "little")
    assert_is_the_photo(read(bytes(data)))


# Raw files --------------------------------------------------------------------------------------

_SENSOR = np.zeros((48, 64, 1), np.uint16)
_THUMBNAIL = page(SMALL, *_REDUCED)

RAW = {
    "DNG": join_pages([page(SMALL, *_REDUCED, (50706, tiffs.BYTE, [1, 4, 0, 0]))]),
    "DNG, the preview not reduced": join_pages([page(SMALL, (50706, tiffs.BYTE, [1, 6, 0, 0]))]),
    "NEF: sensor data below": join_pages(
        [_THUMBNAIL], order=">", children={0: [page(_SENSOR, *_CFA, photometric=1, bits=16)]}
    ),
    "3FR: by photometric": join_pages(
        [_THUMBNAIL], children={0: [page(_SENSOR, photometric=32803, bits=16)]}
    ),
    "linear raw": join_pages([_THUMBNAIL], children={0: [page(photometric=34892)]}),
    "PEF: sensor data first": join_pages([page(_SENSOR, photometric=32803, bits=16)]),
    "ARW: sensor data last": join_pages(
        [_THUMBNAIL, page(_SENSOR, *_CFA, photometric=32803, bits=16)]
    ),
    "SR2: the maker's own data": join_pages([page(SMALL, (50740, tiffs.BYTE, [1, 2, 3, 4]))]),
}


@pytest.mark.parametrize("kind", RAW)
def test_a_camera_s_raw_file_is_refused(kind: str) -> None:
    message = refusal(RAW[kind], "IMG_0001.tif")
    assert "camera's raw file; develop it first" in message


@pytest.mark.parametrize("compression", [32767, 32770, 34713, 65535])
def test_a_raw_file_is_told_by_its_compression(compression: int) -> None:
    below = page(_SENSOR, photometric=1, bits=16)
    tags = [(t, k, [compression] if t == 259 else v) for t, k, v in below[0]]
    data = join_pages([_THUMBNAIL], children={0: [(tags, *below[1:])]})
    assert "camera's raw file" in refusal(data)


def test_a_raw_file_is_told_by_its_name() -> None:
    """Some hide the sensor's data from every tag."""
    data = join_pages([page()])
    assert_is_the_photo(read(data, "DSC0001.tif"))
    for name in ("DSC0001.NEF", "photos/a.srf", "x.kdc"):
        assert "camera's raw file" in refusal(data, name)


@pytest.mark.parametrize(
    "head",
    [b"FUJIFILMCCD-RAW 0201", b"II*\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"],
)
def test_raw_files_that_are_no_tiffs(head: bytes) -> None:
    assert "camera's raw file; develop it first" in refusal(head + bytes(600), "IMG_1.JPG")


# Damage and odd files ---------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [1, 2])
def test_a_tiff_cut_short_anywhere_is_refused(compression: str, bits: int, planar: int) -> None:
    rng = np.random.default_rng(1)
    variety = Variety(bits=bits, compression=compression, planar=planar, rows=7)
    tags, chunks, tiled = page_tags(rng.integers(0, 2**bits, (48, 64, 3)), variety)
    # Directory first, as most writers have it.
    size = len(join_pages([(tags, [b""] * len(chunks), tiled)]))
    whole = join_pages([(tags, chunks, tiled)])
    assert read(whole).size == (64, 48)
    for missing in range(1, len(chunks) + 1):
        kept = [*chunks[: len(chunks) - missing], *[b""] * missing]
        assert "truncated" in refusal(join_pages([(tags, kept, tiled)]))
    assert size < len(whole)


def test_strips_that_are_not_listed_are_missed() -> None:
    tags, chunks, tiled = page_tags(PHOTO, Variety(rows=10))
    message = refusal(join_pages([(tags, chunks[:3], tiled)]))
    assert "only 3 of 5 strips or tiles" in message


def test_garbage_in_a_strip_is_no_picture() -> None:
    tags, chunks, tiled = page_tags(PHOTO, Variety(compression="deflate", bits=16))
    refusal(join_pages([(tags, [b"\xa5" * len(chunk) for chunk in chunks], tiled)]))


def test_an_empty_fourth_sample_that_nobody_declared_hides_nothing() -> None:
    four = np.dstack([PHOTO, np.zeros((48, 64), np.uint8)])
    photo = read(write_tiff(four, Variety(extra=None)))
    assert photo.alpha is None
    assert_is_the_photo(photo)
    four[:24, :, 3] = 200
    assert read(write_tiff(four, Variety(extra=None))).alpha is not None


def test_channels_of_unknown_meaning_are_left_out_and_said() -> None:
    five = np.dstack([PHOTO, PHOTO[..., :2]])
    photo = read(write_tiff(five, Variety(extra=(0, 0))))
    assert_is_the_photo(photo)
    assert photo.alpha is None
    assert photo.notes == ("extra channels of the TIFF left out",)


@pytest.mark.parametrize(
    ("variety", "more"),
    [
        (Variety(bits=8, kind="i"), ()),
        (Variety(bits=16, kind="i", photometric=tiffs.GREY), ()),
        (Variety(bits=32, kind="i", photometric=tiffs.GREY), ()),  # some below 0
        (Variety(bits=64), ()),
        (Variety(photometric=tiffs.GREY, bits=24), ()),
        (Variety(photometric=10), ()),  # ITU Lab
        (Variety(photometric=32845), ()),  # LogLuv
        (Variety(photometric=tiffs.CMYK, extra=None), ((332, tiffs.SHORT, [2]),)),
        (Variety(photometric=tiffs.YCBCR, bits=16, subsampling=(1, 1)), ()),
        (Variety(), ((32997, tiffs.LONG, [4]),)),  # a volume
    ],
)
def test_what_cannot_be_read_right_is_refused_by_name(variety: Variety, more: Any) -> None:
    samples = np.ones((9, 9, tiffs.CHANNELS.get(variety.photometric, 3)), np.int64)
    if variety.kind == "i":
        samples[0] = -1
    if variety.bits == 24:
        tags, _, tiled = page_tags(samples, replace(variety, bits=8))
        tags = [(t, k, [24] if t == 258 else v) for t, k, v in tags]
        data = join_pages([(tags, [bytes(243)], tiled)])
    elif variety.bits == 64:
        data = write_tiff(samples.astype(np.uint64), variety)
    else:
        data = write_tiff(samples, replace(variety, more=more))
    assert " is a " in refusal(data)


def test_resolution_turns_with_the_photo() -> None:
    more = ((274, tiffs.SHORT, [6]), (282, tiffs.RATIONAL, [(300, 1)]))
    for bits in (8, 16):
        pixels = np.asarray(quarters(size=(48, 64))).astype(int) * (257 if bits == 16 else 1)
        variety = Variety(bits=bits, more=(*more, (283, tiffs.RATIONAL, [(150, 1)])))
        photo = read(write_tiff(pixels, variety))
        assert photo.size == photo.image.size == (64, 48)
        assert photo.dpi == (150, 300)


@pytest.mark.parametrize("compression", ["jpeg", "zstd", "tiff_lzw", "lzma", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_what_libtiff_compresses(mode: str, compression: str) -> None:
    image = quarters().convert(mode)
    options = {"quality": 95} if compression == "jpeg" else {}
    photo = read(encode(image, "TIFF", compression=compression, **options))
    wanted = quarter_colours(image.convert("RGB"))
    assert difference(quarter_colours(photo.image), wanted) <= 4


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_fax_pages(compression: str) -> None:
    image = quarters("1", (0, 1, 1, 0))
    data = encode(image, "TIFF", compression=compression)
    assert np.asarray(read(data).image)[..., 0].tolist() == np.asarray(image.convert("L")).tolist()
    # The same file, but for the tag that says what 0 is.
    black_is_zero = b"\x06\x01\x03\0\x01\0\0\0\x01\0"
    assert black_is_zero in data
    data = data.replace(black_is_zero, black_is_zero[:-2] + b"\0\0")
    inverted = 255 - np.asarray(image.convert("L"))
    assert np.asarray(read(data).image)[..., 0].tolist() == inverted.tolist()


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2), (4, 2), (4, 4)])
@pytest.mark.parametrize("compression", ["none", "lzw"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_subsampled_colours(
    subsampling: tuple[int, int], compression: str, tile: tuple[int, int] | None
) -> None:
    pixels = np.asarray(quarters(size=(61, 45)).convert("YCbCr"))
    variety = Variety(
        photometric=tiffs.YCBCR, subsampling=subsampling, compression=compression, rows=8, tile=tile
    )
    photo = read(write_tiff(pixels, variety))
    assert photo.size == (61, 45)
    assert difference(quarter_colours(photo.image), QUARTERS) <= 2


@pytest.mark.parametrize("photometric", [tiffs.LAB, tiffs.ICC_LAB])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [1, 2])
def test_lab(photometric: int, bits: int, planar: int) -> None:
    """TIFF 6.0, section 23, and its ICC supplement: white, and a red (L* 53, a* 80, b* 67)."""
    whole = {(tiffs.LAB, 16): 65535, (tiffs.ICC_LAB, 16): 65280}.get((photometric, bits), 255)
    step = 256 if bits == 16 else 1
    zero = 128 * step if photometric == tiffs.ICC_LAB else 0
    pixels = np.array(
        [[[whole, zero, zero], [whole * 53 // 100, zero + 80 * step, zero + 67 * step]]]
    )
    photo = read(write_tiff(pixels, Variety(photometric=photometric, bits=bits, planar=planar)))
    assert difference(np.asarray(photo.image)[0], [(255, 255, 255), (250, 3, 11)]) <= 8
