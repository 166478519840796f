"""Damaged files: what is missing is reported, and garbage is never accepted as a photo."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from bgx.errors import UnreadableError
from bgx.image.read import read_photo
from bgx.settings import ReadSettings
from support.fakes import ConstantNetwork
from support.pictures import difference, encode, png_chunk
from support.running import cut
from support.tiffs import LONG, Variety, join_pages, page_tags

if TYPE_CHECKING:
    from bgx.image.read import Photo
    from support.tiffs import Tag

END = b"\xff\xd9"


def _noise(size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A picture that fills its file evenly."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1))


PHOTO = _noise()

JPEGS: dict[str, bytes] = {
    "baseline": encode(PHOTO, "JPEG", quality=90),
    "progressive": encode(PHOTO, "JPEG", quality=90, progressive=True),
    "optimised": encode(PHOTO, "JPEG", quality=90, optimize=True),
    "restarts by row": encode(PHOTO, "JPEG", quality=90, restart_marker_rows=1),
    "restarts by block": encode(PHOTO, "JPEG", quality=90, restart_marker_blocks=7),
    "full colours": encode(PHOTO, "JPEG", quality=90, subsampling=0),
    "grey": encode(PHOTO.convert("L"), "JPEG", quality=90),
    "CMYK": encode(PHOTO.convert("CMYK"), "JPEG", quality=90),
    "RGB": encode(PHOTO, "JPEG", quality=90, keep_rgb=True),
    "two in one file": encode(PHOTO, "MPO", quality=90, save_all=True, append_images=[PHOTO]),
}


def read(data: bytes, *, reduced: bool = False) -> Photo:
    return read_photo(data, ReadSettings(max_size=100), name="shoe.jpg", reduced=reduced)


def refusal(data: bytes, *, reduced: bool = False) -> str:
    with pytest.raises(UnreadableError) as caught:
        read(data, reduced=reduced)
    message = str(caught.value)
    assert message.startswith("shoe.jpg: ")
    assert message.isprintable()
    return message


def _first(data: bytes) -> bytes:
    """The first picture of a file that holds several."""
    return data[: data.index(END, data.index(b"\xff\xda")) + 2]


@pytest.mark.parametrize("kind", JPEGS)
def test_pixels_are_pillow_s_and_belong_to_the_photo(kind: str) -> None:
    image = read(JPEGS[kind]).image
    expected = Image.open(io.BytesIO(_first(JPEGS[kind]))).convert("RGB")
    assert difference(image, expected) <= 1
    copy = image.copy()
    image.paste((1, 2, 3), (0, 0, 8, 8))
    assert image.getpixel((7, 7)) == (1, 2, 3)
    assert copy.getpixel((7, 7)) == expected.getpixel((7, 7))
    image.putalpha(0)
    assert image.getpixel((399, 299)) == (*copy.getpixel((399, 299)), 0)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_sound_file_is_read_without_a_word(kind: str) -> None:
    photo = read(JPEGS[kind])
    assert photo.notes == ()
    assert not photo.damaged
    with Image.open(io.BytesIO(JPEGS[kind])) as opened:
        assert difference(photo.image, opened.convert("RGB")) == 0
    # Trailers of phones and of embedded videos are nobody's damage.
    assert read(JPEGS[kind] + b"SEFT" * 100).notes == ()


@pytest.mark.parametrize("kind", JPEGS)
def test_a_file_that_lacks_its_end_marker_alone_has_all_its_pixels(kind: str) -> None:
    whole = _first(JPEGS[kind])
    photo = read(whole.removesuffix(END))
    assert photo.notes == ("the end marker is missing, but all pixels are there",)
    assert not photo.damaged
    assert difference(photo.image, read(whole).image) == 0


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("last", [b"\0", b"\xff\0"])
def test_zeros_before_a_missing_end_marker_may_be_the_picture_s(
    last: bytes, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    pictures = (Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)) for _ in range(20_000))
    files = (encode(picture, "JPEG", quality=90, **options) for picture in pictures)
    whole = next(data for data in files if data.endswith(last + END))

    photo = read(whole.removesuffix(END))

    assert photo.notes == ("the end marker is missing, but all pixels are there",)
    assert not photo.damaged
    assert difference(photo.image, read(whole).image) == 0


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.97])
def test_a_cut_file_with_an_end_marker_is_no_photo(kind: str, share: float, reduced: bool) -> None:
    whole = _first(JPEGS[kind])
    cut = whole[: int(len(whole) * share)].rstrip(b"\xff")
    assert "premature end of data" in refusal(cut + END, reduced=reduced)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_cut_file_is_no_photo(kind: str) -> None:
    whole = _first(JPEGS[kind])
    for share in (0.3, 0.5, 0.8):
        assert "truncated" in refusal(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("kind", ["baseline", "optimised", "full colours", "grey", "CMYK"])
def test_a_little_missing_at_the_end_is_a_note_and_a_doubt(kind: str) -> None:
    whole = JPEGS[kind]
    for share in (0.97, 0.99):
        photo = read(whole[: int(len(whole) * share)])
        assert photo.damaged
        assert photo.notes == ("damaged: the picture's last rows are missing",)
        # The rest is the photo's own.
        upper = (0, 0, 400, 256)
        assert difference(photo.image.crop(upper), read(whole).image.crop(upper)) == 0


def _put(data: bytes, at: float, hole: bytes) -> bytes:
    place = int(len(data) * at)
    return data[:place] + hole + data[place + len(hole) :]


HOLES = {
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "garbage": np.random.default_rng(1).integers(0, 256, 4096, np.uint8).tobytes(),
}


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("kind", JPEGS)
def test_a_hole_in_the_middle_is_no_photo(kind: str, hole: str, reduced: bool) -> None:
    whole = _first(JPEGS[kind])
    for at in (0.3, 0.6, 0.9):
        refusal(_put(whole, at, HOLES[hole]), reduced=reduced)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_part_lost_from_the_middle_is_no_photo(kind: str) -> None:
    whole = _first(JPEGS[kind])
    for at in (0.4, 0.7):
        place = int(len(whole) * at)
        refusal(whole[:place] + whole[place + 3000 :])


@pytest.mark.parametrize("kind", ["restarts by row", "restarts by block"])
def test_restart_markers_out_of_order_are_no_photo(kind: str) -> None:
    whole = JPEGS[kind]
    at = whole.index(b"\xff\xd3", whole.index(b"\xff\xda"))
    refusal(whole[:at] + b"\xff\xd6" + whole[at + 2 :])


def test_padding_before_the_end_marker_is_said_and_harms_nothing() -> None:
    whole = JPEGS["baseline"]
    for byte in (b"\0", b"\xaa"):
        photo = read(whole.removesuffix(END) + byte * 300 + END)
        assert photo.notes == ("padding before the file's end marker",)
        assert not photo.damaged
        assert difference(photo.image, read(whole).image) == 0


def test_padding_that_took_the_place_of_the_picture_is_no_padding() -> None:
    """What a download leaves that reserved the file's size and broke off."""
    for kind in JPEGS:
        whole = _first(JPEGS[kind])
        for share in (0.5, 0.8):
            kept = whole[: int(len(whole) * share)]
            refusal(kept + bytes(len(whole) - len(kept)))
            refusal(kept + bytes(len(whole) - len(kept) - 2) + END)


def test_odd_headers_are_said_and_harm_nothing() -> None:
    whole = bytearray(JPEGS["baseline"])
    scan = whole.index(b"\xff\xda")
    whole[scan + 2 + 12 - 2] = 62  # the last coefficient of a sequential scan is 63
    photo = read(bytes(whole))
    assert photo.notes == ("the JPEG decoder says: Invalid SOS parameters for sequential JPEG",)
    assert not photo.damaged


def test_a_white_background_is_no_hole() -> None:
    """Where zeros are the code of plain blocks, a product on white is mostly zeros."""
    image = Image.new("RGB", (900, 700), "white")
    image.paste(PHOTO, (200, 150))
    for options in ({}, {"optimize": True}, {"progressive": True}, {"subsampling": 0}):
        for mode in ("RGB", "L", "CMYK"):
            data = encode(image.convert(mode), "JPEG", quality=90, **options)
            assert read(data).notes == ()
    assert bytes(64) in encode(image, "JPEG", optimize=True)


@pytest.mark.parametrize("kind", ["baseline", "full colours", "restarts by row", "two in one file"])
def test_no_hole_of_zeros_goes_unnoticed(kind: str) -> None:
    """The decoder alone would not see some of them: their bits come out even."""
    whole = _first(JPEGS[kind])
    scan = whole.index(b"\xff\xda") + 20
    for at in range(scan, len(whole) - 300, 997):
        refusal(whole[:at] + bytes(256) + whole[at + 256 :])


@pytest.mark.parametrize("kind", JPEGS)
def test_large_holes_of_garbage_are_noticed(kind: str) -> None:
    whole = _first(JPEGS[kind])
    rng = np.random.default_rng(0)
    for at in range(whole.index(b"\xff\xda") + 20, len(whole) - 4200, 1999):
        garbage = rng.integers(0, 256, 4096, np.uint8).tobytes()
        refusal(whole[:at] + garbage + whole[at + 4096 :])


@pytest.mark.parametrize(
    "options", [{}, {"refine": True}, {"mask_only": True}, {"region": "10%,10%,80%,80%"}]
)
@pytest.mark.parametrize("damage", ["last rows", "hole"])
def test_the_result_of_a_damaged_photo_is_doubtful(damage: str, options: dict[str, Any]) -> None:
    """However sure the network is."""
    whole = {"last rows": JPEGS["baseline"], "hole": encode(PHOTO, "AVIF")}[damage]
    broken = (
        whole[: int(len(whole) * 0.98)] if damage == "last rows" else _put(whole, 0.5, bytes(600))
    )

    sound, damaged = (
        cut(data, ConstantNetwork(), **options).measured.trust for data in (whole, broken)
    )

    assert (sound.confidence, damaged.confidence) == (1, 1)
    assert (sound.doubtful, damaged.doubtful) == (False, True)


# Other formats ------------------------------------------------------------------------------------


def test_a_jpeg_inside_a_tiff_is_looked_at_too() -> None:
    data = encode(PHOTO, "TIFF", compression="jpeg", quality=90)
    assert read(data).notes == ()
    start = data.index(b"\xff\xda") + 2000
    for hole in HOLES.values():
        refusal(data[:start] + hole + data[start + len(hole) :])


def test_a_png_that_lacks_its_end_alone_has_all_its_pixels() -> None:
    whole = encode(PHOTO, "PNG")
    photo = read(whole.removesuffix(png_chunk(b"IEND")))
    assert photo.notes == ("the end of the file is missing, but all pixels are there",)
    assert not photo.damaged
    assert difference(photo.image, PHOTO) == 0


@pytest.mark.parametrize("kind", HOLES)
@pytest.mark.parametrize("level", [0, 6])
def test_a_hole_in_a_png_is_no_photo(kind: str, level: int) -> None:
    whole = encode(PHOTO, "PNG", compress_level=level)
    for at in (0.3, 0.6, 0.9):
        refusal(_put(whole, at, HOLES[kind]))


def test_a_gif_that_ends_early_is_no_photo() -> None:
    whole = encode(PHOTO.quantize(64), "GIF")
    for share in (0.4, 0.8, 0.95):
        refusal(whole[: int(len(whole) * share)])
        refusal(whole[: int(len(whole) * share)] + b"\0;")


@pytest.mark.parametrize("file_format", ["WEBP", "AVIF", "HEIF", "BMP", "TIFF"])
def test_a_file_that_ends_early_is_no_photo(file_format: str) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    whole = encode(PHOTO, file_format)
    for share in (0.3, 0.6, 0.9, 0.99):
        refusal(whole[: int(len(whole) * share)])


def test_strips_of_nothing_are_no_photo() -> None:
    """Sparse files leave out what is empty, and so do copies that broke off."""
    pixels = np.asarray(PHOTO)
    tags, chunks, tiled = page_tags(pixels, Variety(rows=50))
    broken = bytearray(join_pages([(tags, chunks, tiled)]))
    offsets = np.frombuffer(bytes(broken), "<u4", len(chunks), _find_offsets(bytes(broken)))
    broken[_find_offsets(bytes(broken)) : _find_offsets(bytes(broken)) + 4] = bytes(4)
    assert offsets[0]
    assert "is missing" in refusal(bytes(broken))


def _find_offsets(data: bytes) -> int:
    directory = int.from_bytes(data[4:8], "little")
    at = data.index((273).to_bytes(2, "little") + b"\4\0", directory)
    return int.from_bytes(data[at + 8 : at + 12], "little")


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("WEBP", {"quality": 80}), ("WEBP", {"lossless": True}), ("AVIF", {}), ("HEIF", {})],
)
def test_a_hole_that_the_decoder_does_not_mind_is_a_note_and_a_doubt(
    file_format: str, options: dict[str, Any]
) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    whole = encode(PHOTO, file_format, **options)
    assert read(whole).notes == ()
    assert not read(whole).damaged
    holed = whole[: len(whole) // 2] + bytes(600) + whole[len(whole) // 2 + 600 :]
    try:
        photo = read(holed)
    except UnreadableError:
        return
    assert photo.damaged
    assert photo.notes == ("damaged: a hole of zeros in the middle of the file",)


@pytest.mark.parametrize("colour", ["black", "white", (3, 200, 40)])
@pytest.mark.parametrize("file_format", ["WEBP", "AVIF", "HEIF", "JPEG"])
def test_a_plain_picture_has_no_hole(file_format: str, colour: Any) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
    image = Image.new("RGBA" if file_format != "JPEG" else "RGB", (3000, 2000), colour)
    for options in ({}, {"lossless": True}, {"progressive": True}, {"quality": 100}):
        photo = read(encode(image, file_format, **options))
        assert (photo.notes, photo.damaged) == ((), False)


# Made to cost much time or memory ---------------------------------------------------------------

AVIF = encode(PHOTO, "AVIF")


class CountingStream(io.BytesIO):
    """Counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _seconds_to_read(data: bytes) -> float:
    """Of the processor."""
    start = time.process_time()
    with contextlib.suppress(UnreadableError):
        read(data)
    return time.process_time() - start


@pytest.mark.parametrize(
    "places",
    [
        b"\2\0\0\0" + b"\0\0" + struct.pack(">I", 10_000_000),  # items
        b"\0\0\0\0" + b"\0\0" + struct.pack(">H", 65535) + struct.pack(">3H", 1, 0, 65535) * 200,
    ],
    ids=["items", "extents"],
)
def test_a_box_that_announces_more_than_it_holds_takes_no_time(places: bytes) -> None:
    assert _seconds_to_read(AVIF + _box(b"meta", bytes(4) + _box(b"iloc", places))) < 2


def test_pictures_of_a_file_that_overlap_are_not_read_again_and_again() -> None:
    count = 200
    kinds = b"".join(
        _box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", n, 0, b"av01")) for n in range(count)
    )
    places = b"".join(struct.pack(">HHHII", n, 0, 1, n, len(AVIF)) for n in range(count))
    meta = _box(b"iinf", bytes(4) + struct.pack(">H", count) + kinds) + _box(
        b"iloc", b"\0\0\0\0\x44\0" + struct.pack(">H", count) + places
    )
    stream = CountingStream(AVIF + _box(b"meta", bytes(4) + meta))
    read_photo(stream, ReadSettings(), name="shoe")
    assert stream.count < 10 * len(stream.getvalue())


def test_tracks_within_tracks_take_no_memory() -> None:
    tracks = bytes(100_000)
    for _ in range(800):
        tracks = _box(b"trak", tracks)
    # Without colours of the photo itself, those of tracks are looked for.
    data = AVIF.replace(b"nclx", b"none") + _box(b"moov", tracks)
    tracemalloc.start()
    try:
        read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_a_tiff_s_many_pointers_to_one_directory_take_no_time() -> None:
    count = 200
    entry = struct.pack("<HHII", 40_000, 3, 1, 1)
    directory = struct.pack("<H", 65535) + 65535 * entry + bytes(4)
    pixels = page_tags(np.asarray(PHOTO), Variety())
    size = len(join_pages([_with_pointers(pixels, [0] * count)]))
    assert _seconds_to_read(join_pages([_with_pointers(pixels, [size] * count)]) + directory) < 5


def _with_pointers(
    page: tuple[list[Tag], list[bytes], bool], pointers: list[int]
) -> tuple[list[Tag], list[bytes], bool]:
    tags, chunks, tiled = page
    return sorted([*tags, (330, LONG, pointers)], key=lambda tag: tag[0]), chunks, tiled


def test_a_tile_far_larger_than_the_picture_is_not_unpacked() -> None:
    tags, chunks, _ = page_tags(
        np.asarray(PHOTO.crop((0, 0, 16, 16))), Variety(compression="deflate")
    )
    tags = [tag for tag in tags if tag[0] not in (273, 278, 279)]
    tiles: list[Tag] = [(322, LONG, [32_000]), (323, LONG, [32_000])]
    assert "far larger" in refusal(join_pages([([*tags, *tiles], chunks, True)]))


def test_only_the_first_text_of_a_png_is_unpacked() -> None:
    large = zlib.compress(bytes(60_000_000), 9)
    text = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + large)
    data = encode(PHOTO, "PNG")
    assert _seconds_to_read(data[:33] + 40 * text + data[33:]) < 2


def test_a_tiff_s_tags_of_many_values_are_not_read_again_and_again() -> None:
    values = 1_000_000
    count, entries = 300, [struct.pack("<HHII", tag, 1, values, 8) for tag in (256, 257, 262, 338)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + bytes(values)
    pixels = page_tags(np.asarray(PHOTO), Variety())
    size = len(join_pages([_with_pointers(pixels, [0] * count)]))
    assert _seconds_to_read(join_pages([_with_pointers(pixels, [size] * count)]) + directory) < 5


def test_values_of_exif_that_overlap_are_not_kept() -> None:
    count = 1000
    entries = b"".join(
        struct.pack("<HHII", tag, 7, 200_000, 8) for tag in range(1000, 1000 + count)
    )
    exif = b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4) + bytes(200_000)
    data = encode(PHOTO, "PNG")
    data = data[:33] + png_chunk(b"eXIf", exif) + data[33:]
    tracemalloc.start()
    try:
        photo = read_photo(data, ReadSettings(), name="shoe", metadata=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert photo.notes == ("EXIF left out: its values overlap",)
    assert peak < 20_000_000


def test_strips_of_one_pixel_each_are_refused_where_they_are_many() -> None:
    def line(height: int) -> bytes:
        pixels = np.zeros((height, 1, 1), np.uint8)
        return join_pages([page_tags(pixels, Variety(photometric=1, rows=1))])

    assert read(line(10_000)).size == (1, 10_000)
    assert "of a few pixels each" in refusal(line(100_000))
