"""What is encoded is what was made, in every format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgx.errors import UnwritableError, UsageError
from bgx.image.compose import cut_out, flatten
from bgx.image.read import read_photo
from bgx.options import format_of
from bgx.settings import FORMAT_BY_SUFFIX, FORMATS, Format, PngLevel, ReadSettings
from support.pictures import (
    difference,
    encode,
    encode_file,
    product,
    quarter_colours,
    quarters,
    wide_profile,
)

ALPHA_FORMATS = [name for name in FORMATS if name != "jpg"]
LOSSLESS = ["png", "webp", "tiff"]


def cut_out_product(size: tuple[int, int] = (160, 120)) -> Image.Image:
    return cut_out(*product(size))


def reopen(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    return image


@given(
    file_format=st.sampled_from(LOSSLESS),
    mode=st.sampled_from(["RGBA", "RGB", "L"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_lossless_formats_give_back_every_pixel(
    file_format: Format, mode: str, size: tuple[int, int], seed: int
) -> None:
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), np.uint8)
    picture = Image.fromarray(pixels.squeeze(axis=2) if channels == 1 else pixels)
    if mode == "RGBA":
        picture = cut_out(picture.convert("RGB"), picture.getchannel("A"))
    written = reopen(encode_file(picture, file_format, name="out"))
    assert written.convert(mode).tobytes() == picture.tobytes()


@pytest.mark.parametrize("level", get_args(PngLevel))
@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L"])
def test_png_at_every_level(level: PngLevel, mode: str) -> None:
    picture = cut_out_product().convert(mode)
    written = reopen(encode_file(picture, "png", name="out", png_level=level))
    assert (written.format, written.mode) == ("PNG", mode)
    assert written.tobytes() == picture.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_a_large_png_has_the_same_bytes_on_any_number_of_threads(mode: str) -> None:
    picture = cut_out_product((2500, 2000)).convert(mode)
    alone = encode_file(picture, "png", name="out", threads=1)
    assert all(encode_file(picture, "png", name="out", threads=n) == alone for n in (2, 3, 64))
    assert reopen(alone).tobytes() == picture.tobytes()


@pytest.mark.parametrize("file_format", ALPHA_FORMATS)
@pytest.mark.parametrize("quality", [None, 80])
def test_alpha_comes_back_exactly(file_format: Format, quality: int | None) -> None:
    picture = cut_out_product((320, 240))
    data = encode_file(picture, file_format, name="out", quality=quality)
    written = reopen(data).convert("RGBA")
    assert written.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    # The subject's own colours, right up to its edge.
    shown, expected = (np.asarray(image).astype(int) for image in (written, picture))
    visible = expected[..., 3] > 20
    assert np.abs(shown - expected)[visible].mean() < 4


@pytest.mark.parametrize("file_format", ALPHA_FORMATS)
@pytest.mark.parametrize("quality", [None, 80])
def test_the_removed_background_is_in_no_file(file_format: Format, quality: int | None) -> None:
    """Whatever a codec puts under alpha 0, it does not depend on what was removed."""

    def write_on(background: tuple[int, int, int]) -> bytes:
        ball, alpha = product((96, 72))
        photo = Image.composite(ball, Image.new("RGB", ball.size, background), alpha.point(_SHOWN))
        return encode_file(cut_out(photo, alpha), file_format, name="out", quality=quality)

    assert write_on((255, 0, 0)) == write_on((0, 90, 255))


_SHOWN = [0] + [255] * 255


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_flattened_picture_is_white_beside_the_subject(file_format: Format) -> None:
    picture = flatten(*product((320, 240)), (255, 255, 255))
    written = reopen(encode_file(picture, file_format, name="out"))
    assert written.convert("RGB").crop((0, 0, 320, 30)).getextrema() == ((255, 255),) * 3
    assert difference(written.convert("RGB"), picture) <= (0 if file_format in LOSSLESS else 40)


def test_quality_is_heard() -> None:
    picture = flatten(*product((320, 240)), (255, 255, 255))
    for file_format in ("jpg", "webp", "avif"):
        low, high = (
            len(encode_file(picture, file_format, name="out", quality=quality))
            for quality in (20, 95)
        )
        assert low < high, file_format


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [*((name, "RGB") for name in FORMATS), *((name, "RGBA") for name in ALPHA_FORMATS)],
)
def test_profile_and_resolution_are_written(file_format: Format, mode: str) -> None:
    data = encode_file(
        quarters().convert(mode), file_format, name="out", icc=wide_profile(), dpi=(300, 150)
    )
    photo = read_photo(data, ReadSettings(), name="out")
    assert photo.icc == wide_profile()
    assert photo.dpi == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_matte_carries_no_profile_of_colours(file_format: Format) -> None:
    data = encode_file(
        quarters("L", (0, 90, 180, 255)),
        file_format,
        name="out",
        icc=wide_profile(),
        dpi=(300, 300),
    )
    photo = read_photo(data, ReadSettings(), name="out")
    assert photo.icc is None
    assert photo.dpi == pytest.approx((300, 300), abs=0.1)
    assert difference([c[0] for c in quarter_colours(photo.image)], (0, 90, 180, 255)) <= 4


@pytest.mark.parametrize("file_format", FORMATS)
def test_from_file_to_file_profile_and_resolution_stay(file_format: Format) -> None:
    source = encode(quarters(), "JPEG", quality=95, icc_profile=wide_profile(), dpi=(240, 240))
    photo = read_photo(source, ReadSettings(), name="in")
    picture = flatten(photo.image, Image.new("L", photo.image.size, 255), (0, 0, 0))
    data = encode_file(picture, file_format, name="out", icc=photo.icc, dpi=photo.dpi)
    again = read_photo(data, ReadSettings(), name="out")
    assert (again.icc, again.dpi) == (wide_profile(), pytest.approx((240, 240), abs=0.1))


@pytest.mark.parametrize(
    ("file_format", "size"), [("webp", (16384, 1)), ("jpg", (1, 65501)), ("avif", (65537, 1))]
)
def test_too_large_for_a_format_says_which_to_take(
    file_format: Format, size: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnwritableError, match=r"^out\.x: .*too large for .*; use --format png$"):
        encode_file(Image.new("RGB", size), file_format, name="out.x")
    assert reopen(encode_file(Image.new("RGB", size), "png", name="out.x")).size == size
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (1, 16383), (16383, 1)])
def test_extreme_sizes(file_format: Format, size: tuple[int, int]) -> None:
    for mode in ("RGB", "L") if file_format == "jpg" else ("RGB", "L", "RGBA"):
        picture = Image.new(mode, size, 77)
        assert reopen(encode_file(picture, file_format, name="out")).size == size


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError, SystemError])
def test_what_an_encoder_raises_names_the_target(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object, **__: object) -> None:
        raise error("codec trouble")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(UnwritableError, match=r"^shoe\.webp: .*codec trouble"):
        encode_file(quarters(), "webp", name="shoe.webp")


@pytest.mark.parametrize(("suffix", "file_format"), FORMAT_BY_SUFFIX.items())
def test_the_suffix_names_the_format(suffix: str, file_format: Format) -> None:
    assert format_of(Path("a.b") / f"photo{suffix}") == file_format
    assert format_of(Path(f"photo{suffix.upper()}")) == file_format


@pytest.mark.parametrize("name", ["photo", "photo.", "photo.gif", ".png", "photo.png.bak"])
def test_an_unknown_suffix_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="unknown suffix"):
        format_of(Path(name))
