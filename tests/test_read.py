"""Any picture people have becomes an upright RGB photo; anything else one line that names it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from bgx.errors import PictureError, TooLargeError, UnreadableError
from bgx.image.compose import cut_out
from bgx.image.read import open_photo, read_photo
from bgx.install import install_hint
from bgx.settings import FORMATS, ReadSettings
from support.bitmaps import Bmp, pack_masks, write_bmp, write_png
from support.pictures import (
    BLUE,
    GREEN,
    QUARTERS,
    RED,
    WHITE,
    bomb,
    cmyk_profile,
    difference,
    encode,
    encode_file,
    exif,
    grey_profile,
    png,
    png_chunk,
    quarter_colours,
    quarters,
    srgb_profile,
    store,
    wide_profile,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bgx.image.read import Photo

GREYS = (0, 100, 200, 255)


def read(source: Any, **settings: int) -> Photo:
    return read_photo(source, ReadSettings(**settings), name="shoe.jpg")


def grey(*values: int) -> list[tuple[int, int, int]]:
    return [(value, value, value) for value in values]


# Modes ------------------------------------------------------------------------------------------


def _palette(transparency: bytes | int | None = None) -> bytes:
    image = quarters("P", (0, 1, 2, 3))
    image.putpalette([number for colour in QUARTERS for number in colour])
    return encode(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


def _wide_pixels(*quarter_values: Any) -> np.ndarray[Any, np.dtype[np.uint16]]:
    top = [quarter_values[0]] * 32 + [quarter_values[1]] * 32
    bottom = [quarter_values[2]] * 32 + [quarter_values[3]] * 32
    return np.array([top] * 24 + [bottom] * 24, np.uint16)


def _tiff(pixels: Any) -> bytes:
    return encode(Image.fromarray(pixels), "TIFF")


def _sixteen_bits_big_endian() -> bytes:
    pixels = _wide_pixels(0, 25700, 51400, 65535).astype(">u2")
    return encode(Image.frombytes("I;16B", (64, 48), pixels.tobytes()), "TIFF")


def _unsigned_32_bits() -> bytes:
    pixels = _wide_pixels(0, 25700, 51400, 65535).astype(np.uint32) * 65537
    signed = _tiff(pixels.view(np.int32))
    # Pillow has no unsigned mode to write: the tag SampleFormat (339, SHORT) says 2, signed.
    return signed.replace(
        b"\x53\x01\x03\x00\x01\x00\x00\x00\x02", b"\x53\x01\x03\x00\x01\0\0\0\x01"
    )


SOLID: dict[str, tuple[Callable[[], bytes], list[tuple[int, ...]], int]] = {
    "JPEG": (lambda: encode(quarters(), "JPEG", quality=95), list(QUARTERS), 6),
    "JPEG, progressive": (lambda: encode(quarters(), "JPEG", progressive=True), list(QUARTERS), 6),
    "JPEG, grey": (lambda: encode(quarters("L", GREYS), "JPEG"), grey(*GREYS), 2),
    "JPEG, CMYK as Adobe stores it": (
        lambda: encode(quarters().convert("CMYK"), "JPEG", quality=95),
        list(QUARTERS),
        6,
    ),
    "PNG": (lambda: encode(quarters(), "PNG"), list(QUARTERS), 0),
    "PNG, grey": (lambda: encode(quarters("L", GREYS), "PNG"), grey(*GREYS), 0),
    "PNG, 1 bit": (lambda: encode(quarters("1", (0, 1, 1, 0)), "PNG"), grey(0, 255, 255, 0), 0),
    "PNG, palette": (_palette, list(QUARTERS), 0),
    "PNG, 16-bit grey": (
        lambda: png(_wide_pixels(0, 25700, 51400, 65535)),
        grey(0, 100, 200, 255),
        0,
    ),
    "PNG, 16-bit colour": (
        lambda: png(_wide_pixels(*(tuple(257 * v for v in colour) for colour in QUARTERS))),
        list(QUARTERS),
        0,
    ),
    "WebP": (lambda: encode(quarters(), "WEBP", lossless=True), list(QUARTERS), 0),
    "TIFF": (lambda: encode(quarters(), "TIFF", compression="tiff_lzw"), list(QUARTERS), 0),
    "TIFF with JPEG inside": (
        lambda: encode(quarters(), "TIFF", compression="jpeg", quality=95),
        list(QUARTERS),
        6,
    ),
    "TIFF, CMYK": (lambda: encode(quarters().convert("CMYK"), "TIFF"), list(QUARTERS), 1),
    "TIFF, YCbCr": (lambda: encode(quarters().convert("YCbCr"), "TIFF"), list(QUARTERS), 2),
    "TIFF, Lab": (
        # CIE L* 255/100, a* and b* plus 128, D50
        lambda: encode(
            quarters("LAB", [(136, 208, 195), (128, 128, 128), (0, 128, 128), (255, 128, 128)]),
            "TIFF",
        ),
        [(250, 3, 11), (119, 119, 119), (0, 0, 0), (255, 255, 255)],
        3,
    ),
    "TIFF, 16 bits": (
        lambda: _tiff(_wide_pixels(0, 25700, 51400, 65535)),
        grey(0, 100, 200, 255),
        0,
    ),
    "TIFF, 16 bits, big-endian": (_sixteen_bits_big_endian, grey(0, 100, 200, 255), 0),
    "TIFF, 32 bits holding 8": (
        lambda: _tiff(_wide_pixels(0, 100, 200, 255).astype(np.int32)),
        grey(0, 100, 200, 255),
        0,
    ),
    "TIFF, 32 bits holding 16": (
        lambda: _tiff(_wide_pixels(0, 25700, 51400, 65535).astype(np.int32)),
        grey(0, 100, 200, 255),
        0,
    ),
    "TIFF, 32 bits, signed": (
        lambda: _tiff(_wide_pixels(0, 12850, 25700, 32767).astype(np.int32) * 65536 + 65535),
        grey(0, 100, 200, 255),
        1,
    ),
    "TIFF, 32 bits, unsigned": (_unsigned_32_bits, grey(0, 100, 200, 255), 0),
    "TIFF, float 0..1": (
        lambda: _tiff(_wide_pixels(0, 100, 200, 255).astype(np.float32) / 255),
        grey(0, 100, 200, 255),
        0,
    ),
    "TIFF, float 0..1 and a highlight": (
        lambda: _tiff(_wide_pixels(0, 100, 200, 255).astype(np.float32) / 170),
        grey(0, 100, 200, 255),
        0,
    ),
    "TIFF, float 0..255": (
        lambda: _tiff(_wide_pixels(0, 100, 200, 250).astype(np.float32)),
        grey(0, 100, 200, 250),
        0,
    ),
    "TIFF, float and undefined": (
        lambda: _tiff(np.where(_wide_pixels(0, 0, 1, 1), np.nan, np.float32(0.5))),
        grey(128, 128, 0, 0),
        0,
    ),
    "TIFF, float and infinite": (
        lambda: _tiff(np.where(_wide_pixels(0, 0, 0, 1), np.inf, np.float32(0.5))),
        grey(128, 128, 128, 128),
        0,
    ),
    "BMP": (lambda: encode(quarters(), "BMP"), list(QUARTERS), 0),
    "GIF": (lambda: encode(quarters().quantize(8), "GIF"), list(QUARTERS), 0),
    "AVIF": (lambda: encode(quarters(), "AVIF", quality=95), list(QUARTERS), 8),
    "HEIC": (lambda: encode(quarters(), "HEIF", quality=95), list(QUARTERS), 8),
}


@pytest.mark.parametrize("kind", SOLID)
def test_every_kind_of_picture_becomes_rgb(kind: str) -> None:
    make, colours, tolerance = SOLID[kind]
    if kind == "HEIC":
        pytest.importorskip("pillow_heif")
    photo = read(make())
    assert photo.image.mode == photo.working.mode == "RGB"
    assert photo.image.size == photo.working.size == (64, 48)
    assert photo.alpha is None
    assert difference(quarter_colours(photo.image), colours) <= tolerance
    assert difference(quarter_colours(photo.working), colours) <= tolerance


ALPHAS = (0, 128, 200, 255)
_SEEN = [(*colour, alpha) for colour, alpha in zip(QUARTERS, ALPHAS, strict=True)]
_GREY_SEEN = list(zip(GREYS, ALPHAS, strict=True))
_ONE_COLOUR_CLEAR = (0, 255, 255, 255)

SEE_THROUGH: dict[str, tuple[Callable[[], bytes], list[tuple[int, ...]], tuple[int, ...]]] = {
    "PNG": (lambda: encode(quarters("RGBA", _SEEN), "PNG"), list(QUARTERS), ALPHAS),
    "PNG, grey": (lambda: encode(quarters("LA", _GREY_SEEN), "PNG"), grey(*GREYS), ALPHAS),
    "PNG, palette with an alpha each": (lambda: _palette(bytes(ALPHAS)), list(QUARTERS), ALPHAS),
    "PNG, palette with one colour clear": (lambda: _palette(0), list(QUARTERS), _ONE_COLOUR_CLEAR),
    "PNG, one colour clear": (
        lambda: encode(quarters(), "PNG", transparency=RED),
        list(QUARTERS),
        _ONE_COLOUR_CLEAR,
    ),
    "PNG, one grey clear": (
        lambda: encode(quarters("L", GREYS), "PNG", transparency=0),
        grey(*GREYS),
        _ONE_COLOUR_CLEAR,
    ),
    "PNG, 16-bit": (
        lambda: png(_wide_pixels(*(tuple(257 * v for v in seen) for seen in _SEEN))),
        list(QUARTERS),
        ALPHAS,
    ),
    "PNG, 16-bit grey": (
        lambda: png(_wide_pixels(*((257 * v, 257 * a) for v, a in _GREY_SEEN))),
        grey(*GREYS),
        ALPHAS,
    ),
    "PNG, 16-bit, one grey clear": (
        lambda: encode(
            Image.fromarray(_wide_pixels(*(257 * v for v in GREYS))),
            "PNG",
            transparency=257 * GREYS[0],
        ),
        grey(*GREYS),
        _ONE_COLOUR_CLEAR,
    ),
    "WebP": (
        lambda: encode(quarters("RGBA", _SEEN), "WEBP", lossless=True, exact=True),
        list(QUARTERS),
        ALPHAS,
    ),
    "TIFF": (lambda: encode(quarters("RGBA", _SEEN), "TIFF"), list(QUARTERS), ALPHAS),
    "TIFF, grey": (lambda: encode(quarters("LA", _GREY_SEEN), "TIFF"), grey(*GREYS), ALPHAS),
    "GIF": (
        lambda: encode(
            quarters().quantize(8), "GIF", transparency=quarters().quantize(8).getpixel((0, 0))
        ),
        list(QUARTERS),
        _ONE_COLOUR_CLEAR,
    ),
}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "values"), [(1, (1, 0, 0, 0)), (2, (1, 0, 2, 3)), (4, (5, 0, 10, 15))]
)
def test_one_grey_of_few_may_be_clear(
    depth: int, values: tuple[int, ...], interlaced: bool
) -> None:
    samples = np.asarray(quarters("L", values))[..., None]
    clear = png_chunk(b"tRNS", values[0].to_bytes(2, "big"))
    photo = read(write_png(samples, 0, depth, clear, interlaced=interlaced))
    assert quarter_colours(photo.image) == grey(*(v * 255 // (2**depth - 1) for v in values))
    assert photo.alpha is not None
    assert quarter_colours(photo.alpha) == list(_ONE_COLOUR_CLEAR)


@pytest.mark.parametrize("header", [56, 108, 124])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        (32, (0xFF00, 0xFF0000, 0xFF000000, 0xFF)),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
        (16, (0xF00, 0xF0, 0xF, 0xF000)),
    ],
)
def test_an_alpha_of_a_bmp_that_nobody_wrote_hides_nothing(
    bits: int, masks: tuple[int, ...], header: int
) -> None:
    """Programs that know of none leave its bits 0."""
    widths = np.array([mask.bit_count() for mask in masks[:3]])
    samples = np.asarray(quarters()).astype(np.uint32) >> (8 - widths).astype(np.uint32)
    photo = read(write_bmp(pack_masks(samples, masks[:3]), Bmp(bits, header, masks)))
    assert photo.alpha is None
    assert difference(quarter_colours(photo.image), QUARTERS) <= 256 >> widths.min()
    assert photo.notes == ("alpha ignored: it is 0 everywhere",)


@pytest.mark.parametrize("kind", SEE_THROUGH)
def test_alpha_is_read_beside_straight_colours(kind: str) -> None:
    make, colours, alphas = SEE_THROUGH[kind]
    photo = read(make())
    assert photo.image.mode == "RGB"
    assert quarter_colours(photo.image) == colours
    assert photo.alpha is not None
    assert photo.alpha.mode == "L"
    assert quarter_colours(photo.alpha) == list(alphas)


def test_lossy_files_with_alpha() -> None:
    for file_format in ("AVIF", "HEIF"):
        if file_format == "HEIF":
            pytest.importorskip("pillow_heif")
        photo = read(encode(quarters("RGBA", _SEEN), file_format, quality=95))
        assert photo.alpha is not None
        assert difference(quarter_colours(photo.alpha), ALPHAS) <= 3
        assert difference(quarter_colours(photo.image)[1:], QUARTERS[1:]) <= 8


def test_an_opaque_alpha_is_none() -> None:
    assert read(encode(quarters("RGBA", [(*c, 255) for c in QUARTERS]), "PNG")).alpha is None
    assert read(_palette(b"\xff\xff\xff\xff")).alpha is None


def test_pillow_images_of_any_mode() -> None:
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"):
        image = quarters().convert("RGBA").convert(mode) if mode == "PA" else None
        image = image or Image.new(mode, (6, 4))
        assert read(image).image.mode == "RGB", mode


# What the network sees --------------------------------------------------------------------------


class _SlowFile(io.BytesIO):
    """Lets another thread go on in front of each piece that is read."""

    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.001)
        return super().read(size)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_threads_may_share_a_pillow_image_that_is_not_loaded(file_format: str) -> None:
    data = encode(Image.effect_noise((640, 480), 80), file_format)
    alone = read_photo(data, ReadSettings(), name="photo").image.tobytes()
    shared = Image.open(_SlowFile(data))
    start = threading.Barrier(4)

    def read(_: int) -> bytes:
        start.wait()
        return read_photo(shared, ReadSettings(), name="photo").image.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [alone] * 4


def _see_through(alpha: np.ndarray[Any, Any], hidden: int) -> Image.Image:
    """Random visible colours; under alpha 0 another choice of colours for each ``hidden``."""
    colours = np.random.default_rng(0).integers(0, 256, (*alpha.shape, 3), np.uint8)
    others = np.random.default_rng(hidden).integers(0, 256, (*alpha.shape, 3), np.uint8)
    colours[alpha == 0] = others[alpha == 0]
    return Image.fromarray(np.dstack([colours, alpha]))


@given(
    hidden=st.integers(1, 1000),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 1000),
)
def test_hidden_colours_do_not_reach_the_network(
    hidden: int, size: tuple[int, int], seed: int
) -> None:
    choice = np.random.default_rng(seed).integers(0, 3, size)
    alpha = np.array([0, 128, 255], np.uint8)[choice]
    if not alpha.any() or alpha.all():
        return
    first, second = (
        read(_see_through(alpha, number), max_size=64).working for number in (0, hidden)
    )
    assert first.tobytes() == second.tobytes()


def test_hidden_palette_colours_do_not_reach_the_network() -> None:
    def working(hidden: tuple[int, int, int]) -> bytes:
        colours = (hidden, GREEN, BLUE, WHITE)
        image = quarters("P", (0, 1, 2, 3), size=(640, 480))
        image.putpalette([number for colour in colours for number in colour])
        return read(encode(image, "PNG", transparency=0), max_size=100).working.tobytes()

    assert working((255, 0, 0)) == working((0, 255, 255))


@pytest.mark.parametrize(
    ("size", "working"),
    [
        ((1600, 1200), (800, 600)),
        ((1200, 1600), (600, 800)),
        ((800, 10), (800, 10)),
        ((801, 10), (800, 10)),
        ((300, 200), (300, 200)),
        ((1, 1), (1, 1)),
        ((20000, 1), (800, 1)),
        ((1, 20000), (1, 800)),
        ((7, 5000), (1, 800)),
    ],
)
def test_the_working_image_is_never_larger_than_asked(
    size: tuple[int, int], working: tuple[int, int]
) -> None:
    photo = read(Image.new("RGBA", size, (1, 2, 3, 200)))
    assert photo.image.size == size
    assert photo.working.size == working


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("size", "decoded"),
    [((1600, 1200), (800, 600)), ((1599, 1200), (1599, 1200)), ((4000, 3000), (1000, 750))],
)
def test_reduced_a_jpeg_is_decoded_as_small_as_the_working_image_allows(
    size: tuple[int, int], decoded: tuple[int, int], orientation: int
) -> None:
    data = encode(quarters(size=size), "JPEG", quality=95, exif=exif(orientation=orientation))
    whole = read_photo(data, ReadSettings(), name="shoe.jpg")
    photo = read_photo(data, ReadSettings(), name="shoe.jpg", reduced=True)
    upright = slice(None, None, -1 if orientation == 6 else 1)
    assert photo.size == whole.size == whole.image.size == size[upright]
    assert photo.image.size == decoded[upright]
    assert photo.working.size == whole.working.size
    assert difference(quarter_colours(photo.working), quarter_colours(whole.working)) <= 2


def test_the_working_image_shows_the_whole_photo() -> None:
    photo = read(quarters(size=(3000, 2000)), max_size=64)
    assert difference(quarter_colours(photo.working), QUARTERS) == 0


# Metadata ---------------------------------------------------------------------------------------

TURNED = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", TURNED)
def test_photos_come_out_upright(file_format: str, orientation: int) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    options: dict[str, Any] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(
        file_format, {}
    )
    stored = store(quarters(), orientation)
    photo = read(encode(stored, file_format, exif=exif(orientation=orientation), **options))
    assert photo.image.size == (64, 48)
    assert difference(quarter_colours(photo.image), QUARTERS) <= 12
    # Nothing that opens the photo's pixels next may turn them again.
    assert photo.image.getexif().get(0x0112, 1) == 1


def test_a_turned_photo_keeps_its_alpha_with_it() -> None:
    stored = store(quarters("RGBA", _SEEN), 6)
    photo = read(encode(stored, "PNG", exif=exif(orientation=6)))
    assert photo.alpha is not None
    assert quarter_colours(photo.alpha) == list(ALPHAS)


def test_an_orientation_that_only_xmp_tells() -> None:
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    photo = read(encode(store(quarters(), 3), "JPEG", quality=95, xmp=packet))
    assert difference(quarter_colours(photo.image), QUARTERS) <= 6


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_means_nothing_is_upright(orientation: int) -> None:
    photo = read(encode(quarters(), "JPEG", exif=exif(orientation=orientation), quality=95))
    assert difference(quarter_colours(photo.image), QUARTERS) <= 6


@pytest.mark.parametrize(
    "broken",
    [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"x" * 40],
)
@pytest.mark.filterwarnings("ignore")
def test_broken_exif_says_nothing_about_the_pixels(broken: bytes) -> None:
    photo = read(encode(quarters(), "JPEG", exif=broken, quality=95))
    assert difference(quarter_colours(photo.image), QUARTERS) <= 6


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"dpi": (300, 150)}),
        ("PNG", {"dpi": (300, 150)}),
        ("PNG", {"exif": exif(dpi=(300, 150))}),
        ("TIFF", {"dpi": (300, 150)}),
        ("TIFF", {"resolution_unit": 3, "x_resolution": 300 / 2.54, "y_resolution": 150 / 2.54}),
        ("BMP", {"dpi": (300, 150)}),
        ("WEBP", {"exif": exif(dpi=(300, 150))}),
        ("AVIF", {"exif": exif(dpi=(300, 150))}),
        ("HEIF", {"exif": exif(dpi=(300, 150))}),
    ],
)
def test_dpi_is_read(file_format: str, options: dict[str, Any]) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    assert read(encode(quarters(), file_format, **options)).dpi == pytest.approx(
        (300, 150), abs=0.1
    )


def test_dpi_turns_with_the_photo() -> None:
    data = encode(quarters(), "JPEG", dpi=(300, 150), exif=exif(orientation=6))
    assert read(data).dpi == (150, 300)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "AVIF"])
def test_no_dpi_is_none(file_format: str) -> None:
    dpi = read(encode(quarters(), file_format)).dpi
    assert dpi is None or (file_format == "BMP" and dpi == pytest.approx((96, 96), abs=0.1))


@pytest.mark.parametrize("dpi", [(1, 1), (0, 300), (300, 0), (1e6, 300)])
def test_a_dpi_that_cannot_be_is_none(dpi: tuple[float, float]) -> None:
    assert read(encode(quarters(), "WEBP", exif=exif(dpi=dpi))).dpi is None


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_an_rgb_profile_is_kept(file_format: str) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    profile = wide_profile()
    assert read(encode(quarters(), file_format, icc_profile=profile)).icc == profile


def test_an_rgb_profile_describes_grey_and_palettes_too() -> None:
    for image in (quarters("L", GREYS), quarters().quantize(8)):
        assert read(encode(image, "PNG", icc_profile=srgb_profile())).icc == srgb_profile()


@pytest.mark.parametrize(
    "make",
    [
        lambda: encode(quarters("L", [55] * 4), "PNG", icc_profile=grey_profile()),
        lambda: encode(quarters("L", [55] * 4), "JPEG", icc_profile=grey_profile()),
        lambda: encode(
            quarters("LA", [(55, 0), (55, 9), (55, 200), (55, 255)]),
            "PNG",
            icc_profile=grey_profile(),
        ),
        lambda: encode(
            quarters("L", [55, 55, 55, 9]), "PNG", icc_profile=grey_profile(), transparency=9
        ),
        lambda: encode(
            Image.fromarray(_wide_pixels(*[55 * 257] * 4)), "TIFF", icc_profile=grey_profile()
        ),
    ],
)
def test_a_grey_profile_is_used_up(make: Callable[[], bytes]) -> None:
    photo = read(make())
    assert photo.icc is None
    # Light 55 / 255 is 128 in sRGB.
    assert difference(quarter_colours(photo.image)[:3], grey(128, 128, 128)) <= 1
    assert "icc_profile" not in photo.image.info


def test_a_cmyk_profile_is_used_up() -> None:
    cyan = Image.new("CMYK", (64, 48), (255, 0, 0, 0))
    for file_format in ("JPEG", "TIFF"):
        plain = read(encode(cyan, file_format))
        assert plain.icc is None
        assert difference(plain.image.getpixel((9, 9)), (0, 255, 255)) <= 3
        photo = read(encode(cyan, file_format, icc_profile=cmyk_profile()))
        assert photo.icc is None
        assert difference(photo.image.getpixel((9, 9)), (210, 210, 210)) <= 4


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"not a profile"),
        ("RGB", bytes(36) + b"acsp" + bytes(500)),
        ("RGB", srgb_profile()[:200]),
        ("RGB", grey_profile()),
        ("RGB", cmyk_profile()),
        ("L", cmyk_profile()),
        ("CMYK", srgb_profile()),
        ("CMYK", grey_profile()),
    ],
)
def test_a_profile_that_is_none_or_another_picture_s_is_dropped(mode: str, profile: bytes) -> None:
    image = quarters().convert(mode)
    photo = read(encode(image, "TIFF", icc_profile=profile))
    assert photo.icc is None
    assert difference(photo.image, image.convert("RGB")) <= 1
    assert b"iCCP" not in encode(photo.image, "PNG")


# Files of several pictures ----------------------------------------------------------------------


def _animated(file_format: str, **options: Any) -> bytes:
    first, second = quarters(), quarters(colours=(WHITE, BLUE, GREEN, RED))
    if file_format == "GIF":
        first, second = first.quantize(8), second.quantize(8)
    return encode(first, file_format, save_all=True, append_images=[second], **options)


SEVERAL = {
    "GIF": {"duration": 50},
    "WEBP": {"lossless": True, "duration": 50},
    "PNG": {"duration": 50},
    "AVIF": {"quality": 95, "duration": 50},
    "TIFF": {},
}


@pytest.mark.parametrize("file_format", SEVERAL)
def test_the_first_frame_is_read_and_said(file_format: str) -> None:
    photo = read(_animated(file_format, **SEVERAL[file_format]))
    assert difference(quarter_colours(photo.image), QUARTERS) <= 8
    assert photo.notes == ("first frame of several",)


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("file_format", [*SEVERAL, "MPO"])
def test_no_writer_goes_back_to_the_file(file_format: str, target: Any) -> None:
    """Pillow's writers take frames and tags from an image that still knows its file."""
    photo = read(_animated(file_format, **SEVERAL.get(file_format, {})))
    alpha = Image.new("L", (64, 48), 255)
    alpha.paste(0, (0, 0, 32, 48))
    picture = cut_out(photo.image, alpha)
    if target == "jpg":
        picture = picture.convert("RGB")
    with Image.open(io.BytesIO(encode_file(picture, target, name="out"))) as written:
        assert getattr(written, "n_frames", 1) == 1
        assert difference(written.convert("RGBA"), picture.convert("RGBA")) <= 40
        if target != "jpg":
            assert written.convert("RGBA").getchannel("A").tobytes() == alpha.tobytes()


def test_a_phone_s_mpo_is_one_photo() -> None:
    photo = read(_animated("MPO", quality=95))
    assert difference(quarter_colours(photo.image), QUARTERS) <= 6
    assert photo.notes == ()


def test_a_tiff_s_private_tags_do_not_travel() -> None:
    info = {34377: b"8BIM thumbnail of the background", 700: b"<xmp>secret</xmp>"}
    photo = read(encode(quarters(), "TIFF", tiffinfo=info))
    data = encode_file(photo.image, "tiff", name="out")
    assert b"thumbnail" not in data
    assert b"secret" not in data


# Sources ----------------------------------------------------------------------------------------


def test_a_path_its_bytes_and_its_image_are_the_same_photo(tmp_path: Path) -> None:
    path = tmp_path / "ünï côdé 写真.jpg"
    data = encode(
        store(quarters(), 6),
        "JPEG",
        exif=exif(orientation=6),
        dpi=(300, 150),
        icc_profile=wide_profile(),
    )
    path.write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        photos = [read(source) for source in (path, data, image)]
    for photo in photos:
        assert photo.image.tobytes() == photos[0].image.tobytes()
        assert photo.working.tobytes() == photos[0].working.tobytes()
        assert (photo.icc, photo.dpi) == (wide_profile(), (150, 300))


def test_the_size_is_known_before_anything_is_decoded() -> None:
    data = encode(quarters(size=(640, 480)), "JPEG", exif=exif(orientation=6))
    with io.BytesIO(data) as stream:
        with open_photo(stream, ReadSettings(), name="shoe.jpg") as photo:
            assert photo.size == (640, 480)
            assert photo.decode().size == (480, 640)
        assert not stream.closed
    # The header alone is enough.
    with open_photo(io.BytesIO(data[:700]), ReadSettings(), name="shoe.jpg") as photo:
        assert photo.size == (640, 480)
        with pytest.raises(UnreadableError, match=r"^shoe\.jpg: .*truncated"):
            photo.decode()


def test_an_opened_image_is_the_callers_own() -> None:
    image = quarters("RGBA", _SEEN)
    with open_photo(image, ReadSettings(), name="shoe") as photo:
        assert photo.size == image.size
        assert photo.decode().alpha is not None
    assert quarter_colours(image) == _SEEN


def test_what_a_caller_raises_passes_through() -> None:
    with (
        pytest.raises(KeyError),
        open_photo(quarters(), ReadSettings(), name="shoe.jpg"),
    ):
        raise KeyError


def test_a_given_image_stays_untouched() -> None:
    image = quarters("RGBA", _SEEN)
    image.info["dpi"] = (300, 300)
    before = image.tobytes()
    photo = read(image)
    cut_out(photo.image, Image.new("L", image.size, 0))
    assert image.tobytes() == before
    assert image.mode == "RGBA"
    assert image.info["dpi"] == (300, 300)


# Refusals ---------------------------------------------------------------------------------------


def _complaint(source: Any, kind: type[PictureError] = UnreadableError, **settings: int) -> str:
    with pytest.raises(PictureError) as caught:
        read(source, **settings)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert message.startswith("shoe.jpg: ")
    assert "\n" not in message
    return message


def test_what_is_not_a_picture_is_said(tmp_path: Path) -> None:
    assert "is empty (0 bytes)" in _complaint(b"")
    assert "not a picture bgx can read" in _complaint(b"Dear customer,\nplease find attached")
    assert "not a picture bgx can read" in _complaint(b"\0")
    # Pillow would read it, and some of its formats with programs from outside.
    assert "not a picture bgx can read" in _complaint(b"P6 1 1 255 abc")
    assert "No such file" in _complaint(tmp_path / "missing.jpg")
    _complaint(tmp_path)


def test_a_truncated_file_is_called_truncated() -> None:
    for file_format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"):
        data = encode(quarters().quantize(8) if file_format == "GIF" else quarters(), file_format)
        assert "truncated" in _complaint(data[: len(data) // 2]), file_format
        assert "truncated" in _complaint(data[:20]), file_format


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(encode(quarters(), "JPEG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("may read everything")
    assert "Permission denied" in _complaint(path)


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    assert install_hint("heif") in _complaint(data)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "GIF"])
def test_a_bomb_is_refused_before_it_is_decoded(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    data = bomb(file_format, 30_000, 30_000)
    message = _complaint(data, TooLargeError)
    assert "30000 x 30000 is more than 200,000,000 pixels; scale it down" in message
    # The same file is taken for what it is where the limit allows it.
    assert "truncated" in _complaint(bomb(file_format, 3000, 3000))


def test_max_pixels_is_exact() -> None:
    data = encode(quarters(), "PNG")
    assert read(data, max_pixels=64 * 48).image.size == (64, 48)
    for source in (data, quarters()):
        _complaint(source, TooLargeError, max_pixels=64 * 48 - 1)
    with Image.open(io.BytesIO(bomb("PNG", 3000, 3000))) as not_yet_decoded:
        _complaint(not_yet_decoded, TooLargeError, max_pixels=3000 * 2999)


def test_pillow_s_own_limit_holds_in_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "PIL.Image.MAX_IMAGE_PIXELS" in _complaint(encode(quarters(), "PNG"), TooLargeError)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("keyword", [b"Comment", b"XML:com.adobe.xmp", b"Raw profile type exif"])
def test_a_bomb_of_text_is_never_unpacked(keyword: bytes) -> None:
    # A hundred kilobytes each that would be a hundred megabytes each.
    text = zlib.compress(bytes(100_000_000), 9)
    chunks = [png_chunk(b"zTXt", keyword + b"\0\0" + text)] * 9
    data = png(np.zeros((4, 4), np.uint8), *chunks)
    tracemalloc.start()
    try:
        assert read(data).size == (4, 4)
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [b"IDAT", b"aaAa"])
def test_a_million_chunks_of_nothing_are_not_looked_at_one_by_one(name: bytes) -> None:
    pixels = np.zeros((4, 4), np.uint8)
    assert read(png(pixels, png_chunk(b"aaAa") * 20_000)).size == (4, 4)
    assert "32,769 chunks in" in _complaint(png(pixels, png_chunk(name) * 1_000_000))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["tEXt or zTXt", "iTXt", "XMP", "many"])
def test_texts_of_many_megabytes_are_no_damage(kind: str, compressed: bool) -> None:
    """Pillow refuses more than one, and more than 64 together."""
    texts = PngImagePlugin.PngInfo()
    if kind == "many":
        for number in range(70):
            texts.add_text(f"Comment {number}", "x" * 1_000_000, zip=compressed)
    elif kind == "tEXt or zTXt":
        texts.add_text("Raw profile type 8bim", "0a" * 700_000, zip=compressed)
    else:
        key = "XML:com.adobe.xmp" if kind == "XMP" else "Comment"
        texts.add_itxt(key, f"<x>{'y' * 1_500_000}</x>", zip=compressed)
    photo = read(encode(quarters(), "PNG", pnginfo=texts))
    assert quarter_colours(photo.image) == list(QUARTERS)
    assert photo.notes == ()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_a_profile_of_more_than_a_megabyte_is_kept_and_read_again(file_format: str) -> None:
    profile = bytearray(srgb_profile() + np.random.default_rng(0).bytes(1_500_000))
    profile[:4] = len(profile).to_bytes(4, "big")
    photo = read(encode(quarters(), file_format, icc_profile=bytes(profile)))
    assert photo.icc == profile
    for target in FORMATS:
        assert read(encode_file(photo.image, target, name="out", icc=photo.icc)).icc == profile


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("decoder:\n\tno data\n"), "damaged or truncated (decoder: no data)"),
        (AssertionError(), "damaged or truncated (AssertionError)"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_whatever_a_decoder_raises_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Image.Image) -> None:
        raise error

    data = encode(quarters(), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert said in _complaint(data)


def test_too_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Image.Image) -> None:
        raise MemoryError

    data = encode(quarters(), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert "memory" in _complaint(data, TooLargeError)


# Damage -----------------------------------------------------------------------------------------


def _samples() -> dict[str, bytes]:
    pixels = np.random.default_rng(3).integers(0, 256, (24, 32, 4), np.uint8)
    pixels[:12] = pixels[0, 0]
    rgba = Image.fromarray(pixels)
    rgb = rgba.convert("RGB")
    described = {"exif": exif(orientation=6, dpi=(300, 300)), "icc_profile": srgb_profile()}
    samples = {
        "jpeg": encode(rgb, "JPEG", dpi=(300, 300), **described),
        "jpeg-progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg-cmyk": encode(rgb.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
        "mpo": encode(rgb, "MPO", save_all=True, append_images=[rgb]),
        "png": encode(rgba, "PNG", dpi=(300, 300), **described),
        "png-palette": encode(rgb.quantize(8), "PNG", transparency=b"\0\x80\xff"),
        "png-16-bit": png(pixels[..., 0].astype(np.uint16) * 257),
        "png-animated": encode(rgba, "PNG", save_all=True, append_images=[rgba.rotate(90)]),
        "webp": encode(rgba, "WEBP", lossless=True, **described),
        "webp-animated": encode(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]),
        "tiff-lzw": encode(rgba, "TIFF", compression="tiff_lzw", dpi=(300, 300)),
        "tiff-raw": encode(rgb, "TIFF", exif=exif(orientation=6)),
        "tiff-jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff-pages": encode(rgb, "TIFF", save_all=True, append_images=[rgb.convert("L")]),
        "tiff-float": encode(rgb.convert("F"), "TIFF"),
        "bmp": encode(rgb, "BMP"),
        "gif": encode(rgb.quantize(16), "GIF", save_all=True, append_images=[rgb.quantize(4)]),
        "avif": encode(rgba, "AVIF", **described),
    }
    with contextlib.suppress(ImportError):
        samples["heic"] = encode(rgba, "HEIF", exif=exif(orientation=6))
    return samples


SAMPLES = _samples()
_names = st.sampled_from(sorted(SAMPLES))


def _decode_or_complain(data: bytes) -> None:
    """Nothing but a photo or a complaint comes of it."""
    photo, complaint = None, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            photo = read(data, max_pixels=1_000_000, max_size=64)
        except PictureError as error:
            complaint = str(error)
    if photo is None:
        assert complaint.startswith("shoe.jpg: ")
        assert complaint.isprintable()
        return
    assert photo.image.mode == photo.working.mode == "RGB"
    assert max(photo.working.size) <= 64
    if photo.alpha is not None:
        assert (photo.alpha.mode, photo.alpha.size) == ("L", photo.image.size)
    # What was read can be written.
    picture = photo.image.crop((0, 0, 8, 8))
    encode_file(picture, "png", name="out", icc=photo.icc, dpi=photo.dpi)


@given(name=_names, share=st.floats(0, 1))
def test_a_file_cut_off_anywhere_is_a_photo_or_a_complaint(name: str, share: float) -> None:
    data = SAMPLES[name]
    _decode_or_complain(data[: int(share * len(data))])


@given(
    name=_names,
    flips=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6
    ),
    near_the_start=st.booleans(),
)
def test_a_file_with_bytes_changed_is_a_photo_or_a_complaint(
    name: str, flips: list[tuple[float, int]], near_the_start: bool
) -> None:
    data = bytearray(SAMPLES[name])
    reach = min(len(data), 120) if near_the_start else len(data)
    for share, change in flips:
        data[int(share * reach)] ^= change
    _decode_or_complain(bytes(data))


@given(data=st.binary(max_size=200), name=_names, kept=st.integers(0, 60))
def test_rubbish_behind_any_beginning_is_a_photo_or_a_complaint(
    data: bytes, name: str, kept: int
) -> None:
    _decode_or_complain(SAMPLES[name][:kept] + data)


def test_a_process_of_bgx_s_own_is_quiet_and_has_one_limit(tmp_path: Path) -> None:
    """In a process of its own, because what is set there is global."""
    rng = np.random.default_rng(5)
    for name, data in SAMPLES.items():
        for number in range(12):
            damaged = bytearray(data[: len(data) * (number + 12) // 20])
            damaged[int(rng.integers(len(damaged)))] ^= 0xFF
            (tmp_path / f"{name}-{number}").write_bytes(damaged)
    (tmp_path / "too-many-samples").write_bytes(
        encode(quarters(), "TIFF").replace(
            b"\x15\x01\x03\0\x01\0\0\0\x03\0", b"\x15\x01\x03\0\x01\0\0\0\x03\xf0"
        )
    )
    (tmp_path / "large").write_bytes(bomb("GIF", 14_000, 14_000))
    program = """
        import sys
        from pathlib import Path
        from bgx.errors import PictureError
        from bgx.image.read import prepare_process, read_photo
        from bgx.settings import ReadSettings

        prepare_process()
        for path in sorted(Path(sys.argv[1]).iterdir()):
            try:
                read_photo(path, ReadSettings(max_pixels=10_000_000), name=path.name)
            except PictureError as error:
                print(error)
    """
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    assert "large: 14000 x 14000 is more than 10,000,000 pixels" in result.stdout
    assert len(result.stdout.splitlines()) > 30
