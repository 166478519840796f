"""Foreground colours: what is half transparent loses the old background's colour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bgx.image.foreground import restore_foreground

Map = NDArray[np.float32]
SIZE = (400, 300)


def soft_alpha(seed: int) -> Image.Image:
    """A subject with soft edges, thin strands and glass."""
    generator = np.random.default_rng(seed)
    values = np.zeros(SIZE[::-1], np.uint8)
    values[80:220, 120:280] = 255
    values[100:140, 150:200] = 110
    for x in generator.integers(60, 340, 40):
        values[60:240, x] = 200
    return Image.fromarray(values).filter(ImageFilter.GaussianBlur(1.2))


def colours(seed: int, low: int, high: int) -> Map:
    patches = np.random.default_rng(seed).integers(low, high, (3, 4, 3), np.uint8)
    drawn = Image.fromarray(patches).resize(SIZE, Image.Resampling.BICUBIC)
    return np.asarray(drawn, np.float32)


def lay(front: Map, alpha: Image.Image, behind: Map) -> Map:
    share = np.asarray(alpha, np.float32)[..., None] / np.float32(255)
    mixed: Map = front * share + behind * (1 - share)
    return mixed


def restore(photo: Image.Image, alpha: Image.Image) -> Image.Image:
    restored = photo.copy()
    restore_foreground(restored, alpha, photo)
    assert (restored.mode, restored.size) == ("RGB", photo.size)
    return restored


@pytest.mark.parametrize("seed", range(4))
def test_on_another_background_it_looks_as_if_photographed_there(seed: int) -> None:
    alpha = soft_alpha(seed)
    tones = [(20, 120), (140, 250)]
    subject, old = colours(seed, *tones[seed % 2]), colours(seed + 10, *tones[1 - seed % 2])
    new = colours(9, 0, 255)
    photo = Image.fromarray(lay(subject, alpha, old).round().astype(np.uint8))

    restored = np.asarray(restore(photo, alpha), np.float32)

    values = np.asarray(alpha)
    soft = (values > 5) & (values < 250)
    truth = lay(subject, alpha, new)

    def error(front: Map) -> float:
        return float(np.abs(lay(front, alpha, new) - truth)[soft].mean())

    share = values[..., None] / np.float32(255)
    multiplied = np.asarray(photo, np.float32) * share
    assert error(restored) < error(np.asarray(photo, np.float32)) / 5
    assert error(restored) < error(multiplied) / 2


def test_decided_pixels_keep_the_photos_colours() -> None:
    alpha = soft_alpha(1)
    noise = np.random.default_rng(5).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    photo = Image.fromarray(noise)

    restored = np.asarray(restore(photo, alpha))

    opaque = np.asarray(alpha) == 255
    assert np.abs(restored[opaque].astype(int) - noise[opaque]).max() == 0


@pytest.mark.parametrize("value", [0, 255])
def test_all_clear_or_all_opaque_is_left_alone(value: int) -> None:
    photo = Image.fromarray(colours(2, 0, 255).astype(np.uint8))

    assert restore(photo, Image.new("L", SIZE, value)).tobytes() == photo.tobytes()


def test_inside_a_wide_undecided_part_the_photos_colours_stay() -> None:
    values = np.full(SIZE[::-1], 128, np.uint8)
    values[:, :40], values[:, -40:] = 255, 0
    photo = Image.fromarray(colours(3, 0, 255).astype(np.uint8))

    restored = np.asarray(restore(photo, Image.fromarray(values))).astype(int)

    middle = np.s_[:, 120:280]
    assert np.abs(restored[middle] - np.asarray(photo)[middle]).max() <= 1


def test_one_colour_all_over_stays_that_colour() -> None:
    photo = Image.new("RGB", SIZE, (90, 140, 200))

    restored = np.asarray(restore(photo, soft_alpha(1))).astype(int)

    assert np.abs(restored - (90, 140, 200)).max() <= 1


@given(st.tuples(st.integers(1, 150), st.integers(1, 150)), st.integers(0, 9))
def test_any_size_and_any_alpha(size: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    photo = Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), np.uint8))
    alpha = Image.fromarray(generator.integers(0, 256, size[::-1], np.uint8))

    restored = photo.copy()
    working = photo.resize((max(1, size[0] // 2), max(1, size[1] // 2)))
    restore_foreground(restored, alpha, working)

    assert restored.size == size
