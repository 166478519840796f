"""Colour spaces that a file names by code points (CICP) are converted correctly."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from bgx.errors import UnreadableError
from bgx.image.icc import convert_colours
from bgx.image.read import read_photo
from bgx.settings import ReadSettings
from support.pictures import difference, encode, png, png_chunk, srgb_profile, wide_profile
from support.tiffs import write_exif

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgx.image.read import Photo

COLOURS = [(200, 100, 50), (60, 160, 90), (90, 100, 190), (128, 128, 128), (255, 255, 255)]
"""Inside sRGB, whatever the primaries here."""

# Linear RGB to linear sRGB: CSS Color Module Level 4, "Sample code for color conversions", and
# ITU-R BT.2407.
TO_SRGB = {
    1: np.eye(3),
    9: np.array(
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    ),
    12: np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]),
    "Adobe": np.array([[1.3982, -0.3983, 0], [0, 1, 0], [0, -0.0429, 1.0429]]),
}


def _srgb_to_light(v: Any) -> Any:
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _bt709_to_light(v: Any) -> Any:
    return np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))


TO_LIGHT: dict[int, Callable[[Any], Any]] = {
    1: _bt709_to_light,
    6: _bt709_to_light,
    13: _srgb_to_light,
    14: _bt709_to_light,
    4: lambda v: v**2.2,
    8: lambda v: v,
}


def in_srgb(numbers: Any, primaries: Any, to_light: Callable[[Any], Any]) -> Any:
    light = (to_light(np.asarray(numbers, float) / 255) @ TO_SRGB[primaries].T).clip(0, 1)
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return encoded * 255


def _patches() -> Image.Image:
    image = Image.new("RGB", (len(COLOURS) * 16, 16))
    for number, colour in enumerate(COLOURS):
        image.paste(colour, (number * 16, 0, number * 16 + 16, 16))
    return image


def _middles(image: Image.Image) -> list[Any]:
    return [image.getpixel((number * 16 + 8, 8)) for number in range(len(COLOURS))]


def with_codes(file_format: str, primaries: int, transfer: int, **options: Any) -> bytes:
    if file_format == "PNG":
        return png(np.asarray(_patches()), png_chunk(b"cICP", bytes((primaries, transfer, 0, 1))))
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    data = encode(_patches(), file_format, quality=100, **options)
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def read(data: bytes) -> Photo:
    return read_photo(data, ReadSettings(), name="shoe")


CONTAINERS = ["AVIF", "HEIF", "PNG"]


@pytest.mark.parametrize("file_format", CONTAINERS)
@pytest.mark.parametrize("primaries", [1, 9, 12])
@pytest.mark.parametrize("transfer", [1, 6, 13, 14, 4, 8])
def test_codes_become_the_profile_they_mean(
    file_format: str, primaries: int, transfer: int
) -> None:
    photo = read(with_codes(file_format, primaries, transfer))
    numbers = _middles(photo.image)
    assert difference(numbers, COLOURS) <= 4  # they are kept as they are
    if (primaries, transfer) == (1, 13):
        assert photo.icc is None
        return
    assert photo.icc is not None
    converted = _middles(convert_colours(photo.image, photo.icc))
    wanted = in_srgb(numbers, primaries, TO_LIGHT[transfer])
    assert np.abs(np.array(converted) - wanted).max() <= 2


@pytest.mark.parametrize("file_format", CONTAINERS)
@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_with_a_remedy(file_format: str, transfer: int, name: str) -> None:
    with pytest.raises(
        UnreadableError, match=rf"^shoe: has HDR colours \({name}\).*save it as SDR"
    ):
        read(with_codes(file_format, 9, transfer))


@pytest.mark.parametrize("file_format", CONTAINERS)
def test_codes_that_say_nothing_are_srgb(file_format: str) -> None:
    assert read(with_codes(file_format, 2, 2)).icc is None


@pytest.mark.parametrize("file_format", ["AVIF", "PNG"])
def test_codes_that_nobody_knows_are_refused(file_format: str) -> None:
    with pytest.raises(UnreadableError, match=r"primaries 77, transfer 13"):
        read(with_codes(file_format, 77, 13))


@pytest.mark.parametrize("file_format", ["AVIF", "HEIF"])
def test_a_profile_says_more_than_codes(file_format: str) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    assert read(encode(_patches(), file_format, icc_profile=wide_profile())).icc == wide_profile()


def test_an_image_sequence_tells_its_colours_too() -> None:
    frames = encode(_patches(), "AVIF", quality=100, save_all=True, append_images=[_patches()])
    assert frames[8:12] == b"avis"
    patched = frames
    for at in [at for at in range(len(frames)) if frames.startswith(b"nclx", at)]:
        patched = patched[: at + 4] + struct.pack(">HH", 12, 13) + patched[at + 8 :]
    photo = read(patched)
    assert photo.icc == read(with_codes("PNG", 12, 13)).icc


# PNG ----------------------------------------------------------------------------------------------

_SRGB_POINTS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_P3_POINTS = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
_NO_POINTS = (2063725895, 92094, 62241, 45746, 100000, 1096562447, 100000, 3413451145)


def _gamma(value: int) -> bytes:
    return png_chunk(b"gAMA", value.to_bytes(4, "big"))


def _points(points: tuple[int, ...]) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *points))


def _profile_chunk(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def _png(*chunks: bytes) -> Photo:
    return read(png(np.asarray(_patches()), *chunks))


def test_gamma_and_primaries_of_srgb_are_srgb() -> None:
    for chunks in (
        (_gamma(45455),),
        (_gamma(45455), _points(_SRGB_POINTS)),
        (_points(_SRGB_POINTS),),
        (_points(_P3_POINTS),),  # primaries without a curve describe nothing
        (_gamma(0), _points(_P3_POINTS)),
        (_gamma(45455), png_chunk(b"cHRM", bytes(32))),
        (_gamma(45455), _points(_NO_POINTS)),
    ):
        assert _png(*chunks).icc is None


def test_gamma_counts() -> None:
    photo = _png(_gamma(55556), _points(_SRGB_POINTS))  # a Macintosh before 2009
    assert _middles(photo.image) == COLOURS
    converted = _middles(convert_colours(photo.image, photo.icc))
    assert np.abs(np.array(converted) - in_srgb(COLOURS, 1, lambda v: v**1.8)).max() <= 1.5


def test_primaries_count() -> None:
    photo = _png(_gamma(45455), _points(_P3_POINTS))
    converted = _middles(convert_colours(photo.image, photo.icc))
    assert np.abs(np.array(converted) - in_srgb(COLOURS, 12, _srgb_to_light)).max() <= 1.5


def test_what_says_more_counts_first() -> None:
    codes = png_chunk(b"cICP", bytes((12, 13, 0, 1)))
    profile = _profile_chunk(wide_profile())
    intent = png_chunk(b"sRGB", b"\0")
    assert _png(codes, profile, _gamma(99999)).icc == _png(codes).icc != wide_profile()
    assert _png(profile, intent, _gamma(99999)).icc == wide_profile()
    assert _png(intent, _gamma(99999), _points(_P3_POINTS)).icc is None


def test_video_s_narrow_range_is_refused() -> None:
    with pytest.raises(UnreadableError, match="narrow-range"):
        _png(png_chunk(b"cICP", bytes((1, 13, 0, 0))))


# BMP ----------------------------------------------------------------------------------------------


def _bmp(space: int, *, points: bytes = bytes(36), gamma: float = 0, profile: bytes = b"") -> bytes:
    """A BMP of version 5 (BITMAPV5HEADER), 24 bits."""
    image = _patches()
    rows = np.asarray(image)[::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, *image.size, 1, 24, 0, len(rows), 0, 0, 0, 0)
    header += bytes(16) + struct.pack("<I", space) + points
    header += struct.pack("<3I", *[round(gamma * 65536)] * 3)
    header += struct.pack("<4I", 4, 124 + len(rows), len(profile), 0)
    at = 14 + 124
    head = b"BM" + struct.pack("<IHHI", at + len(rows) + len(profile), 0, 0, at)
    return head + header + rows + profile


def test_bmp_s_embedded_profile_is_kept() -> None:
    photo = read(_bmp(int.from_bytes(b"MBED", "big"), profile=wide_profile()))
    assert _middles(photo.image) == COLOURS
    assert photo.icc == wide_profile()


def test_bmp_s_calibration_counts_where_there_is_one() -> None:
    xyz = np.array(
        [[0.4866, 0.2290, 0.0], [0.2657, 0.6917, 0.0451], [0.1982, 0.0793, 1.0439]]
    )  # P3
    points = struct.pack("<9i", *(round(v * 2**30) for v in xyz.ravel() / 1.1))
    photo = read(_bmp(0, points=points, gamma=2.2))
    converted = _middles(convert_colours(photo.image, photo.icc))
    assert np.abs(np.array(converted) - in_srgb(COLOURS, 12, _srgb_to_light)).max() <= 6
    assert read(_bmp(0)).icc is None
    assert read(_bmp(int.from_bytes(b"sRGB", "big"), points=points, gamma=2.2)).icc is None


# Cameras ------------------------------------------------------------------------------------------


def _camera(*details: Any, **options: Any) -> Photo:
    exif = b"Exif\0\0" + write_exif([(271, 2, b"Camera\0")], details=details)
    return read(encode(_patches(), "JPEG", quality=100, subsampling=0, exif=exif, **options))


def _interoperability(index: bytes) -> list[Any]:
    """Its directory lies inside the maker's note, where a test can put it at a known place."""
    directory = struct.pack("<HHHI4sI", 1, 1, 2, 4, index, 0)
    # Behind the header, the two directories and the camera's name.
    at = 8 + (2 + 12 * 2 + 4) + 8 + (2 + 12 * 3 + 4)
    return [(0x927C, 7, directory), (0xA001, 3, [65535]), (0xA005, 4, [at])]


def test_a_camera_s_adobe_rgb_is_one_with_or_without_a_profile() -> None:
    photo = _camera(*_interoperability(b"R03\0"))
    assert photo.icc is not None
    converted = _middles(convert_colours(photo.image, photo.icc))
    wanted = in_srgb(_middles(photo.image), "Adobe", lambda v: v ** (563 / 256))
    assert np.abs(np.array(converted) - wanted).max() <= 2
    assert _camera((0xA001, 3, [2])).icc == photo.icc
    assert _camera((0xA001, 3, [2]), icc_profile=srgb_profile()).icc == srgb_profile()


@pytest.mark.parametrize("file_format", ["WEBP", "TIFF", "PNG", "AVIF", "HEIF"])
def test_adobe_rgb_is_told_by_exif_in_any_format(file_format: str) -> None:
    """Programs that turn a camera's JPEG into another format keep its numbers and its EXIF."""
    exif = b"Exif\0\0" + write_exif([(271, 2, b"Camera\0")], details=[(0xA001, 3, [2])])
    if file_format in {"AVIF", "HEIF"}:
        data = with_codes(file_format, 2, 2, exif=exif)
    else:
        data = encode(_patches(), file_format, exif=exif)
    assert read(data).icc == _camera((0xA001, 3, [2])).icc


@pytest.mark.parametrize("file_format", CONTAINERS)
def test_what_the_format_says_counts_before_exif(file_format: str) -> None:
    exif = write_exif([(271, 2, b"Camera\0")], details=[(0xA001, 3, [2])])
    if file_format == "PNG":
        chunks = png_chunk(b"eXIf", exif), png_chunk(b"sRGB", b"\0")
        assert _png(*chunks).icc is None
        return
    assert read(with_codes(file_format, 1, 13, exif=b"Exif\0\0" + exif)).icc is None


def test_a_camera_s_srgb_needs_no_profile() -> None:
    assert _camera((0xA001, 3, [1])).icc is None
    assert _camera(*_interoperability(b"R98\0")).icc is None
    assert _camera((0xA001, 3, [65535])).icc is None


def test_a_profile_that_is_made_is_one_that_others_read() -> None:
    """Kept in the result, it must be sound for every program behind it."""
    icc = read(with_codes("PNG", 12, 13)).icc
    assert icc is not None
    assert int.from_bytes(icc[:4], "big") == len(icc)
    assert icc[36:40] == b"acsp"
    data = encode(Image.new("RGB", (2, 2), "white"), "JPEG", icc_profile=icc)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info["icc_profile"] == icc
    white = convert_colours(Image.new("RGB", (1, 1), "white"), icc).getpixel((0, 0))
    assert white == (255, 255, 255)
