"""Colours as people write them, and in the numbers of a profile."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from bgx.errors import UsageError
from bgx.image.icc import convert_colour, convert_colours, srgb_profile
from bgx.parsers import parse_colour
from bgx.settings import Tint
from support.pictures import difference, product, quarters, wide_profile


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("white", (255, 255, 255)),
        (" #f80 ", (255, 136, 0)),
        ("#102030", (16, 32, 48)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
    ],
)
def test_colours_as_people_write_them(text: str, colour: tuple[int, int, int]) -> None:
    assert parse_colour(text) == colour


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("#10203040", Tint((16, 32, 48), 64)),
        ("#f000", Tint((255, 0, 0), 0)),
        ("#102030ff", (16, 32, 48)),
        ("rgba(1, 2, 3, 4)", Tint((1, 2, 3), 4)),
    ],
)
def test_colours_that_let_something_through(text: str, colour: object) -> None:
    assert parse_colour(text) == colour


@pytest.mark.parametrize("text", ["", "whitish", "#12", "#1020304050"])
def test_no_colours(text: str) -> None:
    with pytest.raises(UsageError, match="--background"):
        parse_colour(text)


def _open(icc: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(icc))


def test_a_wide_photo_becomes_srgb_as_littlecms_makes_it() -> None:
    photo, _ = product()
    converted = convert_colours(photo, wide_profile())
    expected = ImageCms.profileToProfile(
        photo, _open(wide_profile()), ImageCms.createProfile("sRGB")
    )
    assert difference(converted, photo) > 5
    assert difference(converted, expected) <= 1


def test_without_a_profile_a_photo_is_srgb_already() -> None:
    photo, _ = product()
    assert convert_colours(photo, None) is photo
    assert convert_colours(photo, wide_profile(), wide_profile()) is photo
    assert difference(convert_colours(photo, srgb_profile()), photo) <= 1


def test_a_profile_that_cannot_be_used_is_taken_for_srgb() -> None:
    assert convert_colours(quarters("L", [9] * 4), wide_profile()).getpixel((0, 0)) == (9, 9, 9)


def test_a_colour_looks_the_same_in_another_profile() -> None:
    red = convert_colour((255, 0, 0), wide_profile())
    assert max(red[1:]) > 0 or red[0] < 255
    back = convert_colours(Image.new("RGB", (1, 1), red), wide_profile())
    assert difference(back.getpixel((0, 0)), (255, 0, 0)) <= 3
    assert convert_colour((255, 255, 255), wide_profile()) == (255, 255, 255)


def test_the_srgb_profile_is_the_same_in_every_run() -> None:
    profile = srgb_profile()
    assert profile[24:36] == bytes((0x07, 0xE0, 0, 1, 0, 1)) + bytes(6)
    slope = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2))
    assert difference(convert_colours(slope, profile, None), slope) <= 1
    assert "sRGB" in ImageCms.getProfileDescription(_open(profile))
