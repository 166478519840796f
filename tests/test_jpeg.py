"""White that is still white in the decoded JPEG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFilter

from bgx.image.jpeg import encode_white_jpeg
from bgx.image.metadata import Metadata
from support.pictures import difference, encode, encode_file, exif, product, wide_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _decode(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.format == "JPEG"
        assert opened.mode == "RGB"
        return np.asarray(opened)


def _on_white(softness: float = 0.0) -> Image.Image:
    photo, alpha = product((300, 203))
    if softness:
        alpha = alpha.filter(ImageFilter.GaussianBlur(softness))
    canvas = Image.new("RGB", photo.size, "white")
    canvas.paste(photo, mask=alpha)
    return canvas


@pytest.mark.parametrize("quality", [100, 95, 92, 80, 60])
@pytest.mark.parametrize("softness", [0.0, 2.0])
def test_white_is_white_after_decoding(quality: int, softness: float) -> None:
    picture = _on_white(softness)
    white = (np.asarray(picture) == 255).all(axis=2)
    # Pillow's own JPEG shows what there is to mend.
    plain = _decode(encode(picture, "JPEG", quality=quality, subsampling=0))
    assert (plain[white] != 255).any()
    assert (_decode(encode_white_jpeg(picture, quality))[white] == 255).all()


@given(st.integers(0, 2**32 - 1), st.integers(85, 100))
def test_white_is_white_beside_whatever_there_is(seed: int, quality: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (24, 40, 3), np.uint8)
    white = random.random((24, 40)) < random.random()
    pixels[white] = 255
    shown = _decode(encode_white_jpeg(Image.fromarray(pixels), quality))
    assert (shown[white] == 255).all()


@pytest.mark.parametrize("quality", [92, 100])
def test_the_subject_is_as_true_as_in_a_plain_jpeg(quality: int) -> None:
    picture = _on_white()
    subject = np.asarray(picture.convert("L")) < 200
    errors = [
        np.abs(_decode(data)[subject].astype(int) - np.asarray(picture)[subject]).mean()
        for data in (
            encode_white_jpeg(picture, quality),
            encode(picture, "JPEG", quality=quality, subsampling=0),
        )
    ]
    assert errors[0] <= errors[1] + 0.25


def test_plain_colours_come_back_within_a_level() -> None:
    for colour in [(0, 0, 0), (254, 254, 254), (13, 77, 201), (230, 30, 20), (128, 127, 129)]:
        shown = _decode(encode_white_jpeg(Image.new("RGB", (20, 20), colour), 92))
        assert difference(shown, colour) <= 1


def test_white_is_white_with_all_that_a_file_can_say() -> None:
    metadata = Metadata(exif(dpi=(72, 72)), b"<x:xmpmeta/>")
    data = encode_file(
        _on_white(),
        "jpg",
        name="out",
        icc=wide_profile(),
        dpi=(240, 120),
        metadata=metadata,
        exact_white=True,
    )
    white = (np.asarray(_on_white()) == 255).all(axis=2)
    assert (_decode(data)[white] == 255).all()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info["icc_profile"] == wide_profile()
        assert opened.info["xmp"] == b"<x:xmpmeta/>"
        tags = opened.getexif()
        assert (tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution]) == (240, 120)


def test_quality_decides_the_size() -> None:
    sizes = [len(encode_white_jpeg(_on_white(), quality)) for quality in (20, 50, 80, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 2
