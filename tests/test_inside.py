"""Filling what the network left undecided inside a subject: opaque parts become opaque, gaps and
soft edges stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from bgx.image.inside import fill_inside

Map = NDArray[np.float32]

RED, BLUE = (180, 40, 50), (60, 120, 200)
INSIDE = np.s_[140:180, 140:180]


def disc(softness: float = 6, centre: tuple[int, int] = (160, 160), radius: float = 90) -> Map:
    """The matte of a round subject, 320 x 320, whose edge is that many pixels soft."""
    y, x = np.mgrid[:320, :320].astype(np.float32)
    distance = np.hypot(x - centre[0], y - centre[1])
    return ((radius - distance) / softness + 0.5).clip(0, 1).astype(np.float32)


def photo(subject: Map) -> Image.Image:
    """Red where the subject is, blue elsewhere."""
    share = subject[..., None]
    return Image.fromarray(np.rint(share * RED + (1 - share) * BLUE).astype(np.uint8))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_a_veil_over_an_opaque_subject_is_filled(alpha: float) -> None:
    matte = disc()
    matte[INSIDE] = alpha

    filled = fill_inside(matte, photo(disc()))

    assert filled[146:174, 146:174].min() > 0.98
    assert np.abs(filled - disc()).mean() < np.abs(matte - disc()).mean() / 5


def test_a_veil_that_the_picture_cuts_off_is_filled() -> None:
    subject = np.zeros((320, 320), np.float32)
    subject[100:, 80:240] = 1
    matte = subject.copy()
    matte[280:, 140:180] = 0.4

    assert fill_inside(matte, photo(subject))[286:, 146:174].min() > 0.98


def test_a_part_at_the_outline_is_filled() -> None:
    """The subject does not enclose it."""
    matte = disc()
    matte[:, 220:] *= 0.5

    filled = fill_inside(matte, photo(disc()))

    assert filled[150:170, 226:238].min() > 0.98


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_a_gap_that_shows_the_backgrounds_colour_is_not_filled(alpha: float) -> None:
    """Between arm and body: the network saw it half, the photo shows it."""
    subject = disc()
    subject[INSIDE] = 0
    matte = disc()
    matte[INSIDE] = alpha

    filled = fill_inside(matte, photo(subject))

    assert np.abs(filled - matte)[145:175, 145:175].max() < 0.01


def test_a_hole_that_the_network_saw_stays_open_whatever_its_colour() -> None:
    matte = disc()
    matte[INSIDE] = 0.05

    filled = fill_inside(matte, photo(disc()))

    assert np.array_equal(filled[145:175, 145:175], matte[145:175, 145:175])


def test_an_object_that_the_network_doubts_as_a_whole_stays_doubtful() -> None:
    subject, other = disc(centre=(90, 160), radius=60), disc(centre=(250, 160), radius=40)
    matte = np.maximum(subject, 0.6 * other)

    filled = fill_inside(matte, photo(np.maximum(subject, other)))

    assert np.abs(filled - matte)[:, 220:].max() < 0.01


def test_a_doubted_part_that_touches_the_subject_and_has_its_colours_is_filled() -> None:
    subject, other = disc(centre=(90, 160), radius=60), disc(centre=(180, 160), radius=40)
    matte = np.maximum(subject, 0.6 * other)

    filled = fill_inside(matte, photo(np.maximum(subject, other)))

    assert filled[150:170, 150:210].min() > 0.9


@pytest.mark.parametrize("alpha", [0.08, 0.12, 0.2])
def test_haze_over_the_background_stays(alpha: float) -> None:
    """The network is sure of no background whose colour would tell."""
    matte = np.maximum(disc(), np.float32(alpha))

    filled = fill_inside(matte, Image.new("RGB", (320, 320), RED))

    assert np.abs(filled - matte)[disc() == 0].max() < 0.01


@pytest.mark.parametrize("alpha", [0.12, 0.4, 0.6])
def test_where_both_sides_look_alike_nothing_is_filled(alpha: float) -> None:
    matte = disc(centre=(100, 160), radius=60)
    matte[120:200, 150:200] = np.maximum(matte[120:200, 150:200], alpha)

    filled = fill_inside(matte, Image.new("RGB", (320, 320), RED))

    assert np.abs(filled - matte)[matte < 0.8].max() < 0.01


def test_a_pattern_does_not_keep_a_veil() -> None:
    """Dots of the background's colour, each as large as a cell of the grid."""
    pixels = np.array(photo(disc()).resize((80, 80), Image.Resampling.BOX))
    pixels[30:50:3, 30:50:3] = BLUE
    matte = disc()
    matte[INSIDE] = 0.2

    filled = fill_inside(matte, Image.fromarray(pixels))

    assert filled[146:174, 146:174].min() > 0.9


def test_a_wide_part_that_only_its_colour_tells_is_filled() -> None:
    """The network is sure of the head, and hardly saw the body."""
    subject = np.zeros((320, 320), np.float32)
    subject[20:, 60:260] = 1
    matte = subject.copy()
    matte[140:] *= 0.2

    filled = fill_inside(matte, photo(subject))

    assert filled[145:, 75:245].min() > 0.98


def test_a_wide_part_of_a_colour_that_nothing_sure_has_stays_doubtful() -> None:
    subject = np.zeros((320, 320), np.float32)
    subject[20:, 60:260] = 1
    pixels = np.array(photo(subject))
    pixels[140:, 60:260] = (150, 110, 60)
    matte = subject.copy()
    matte[140:] *= 0.2

    filled = fill_inside(matte, Image.fromarray(pixels))

    assert np.abs(filled - matte)[150:].max() < 0.01


def test_a_shadow_at_the_subject_is_not_filled() -> None:
    subject = disc()
    shadow = disc(softness=20, centre=(190, 250), radius=50) * (1 - subject)
    pixels = np.asarray(photo(subject)) * (1 - 0.4 * shadow[..., None])

    matte = np.maximum(subject, 0.3 * shadow)
    filled = fill_inside(matte, Image.fromarray(np.rint(pixels).astype(np.uint8)))

    assert np.abs(filled - matte).max() < 0.03


@pytest.mark.parametrize("softness", [10, 20, 30, 40])
def test_blurred_outlines_stay(softness: float) -> None:
    soft = disc(softness=softness)

    assert np.abs(fill_inside(soft, photo(soft)) - soft).max() < 0.03


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_even_matte_stays(value: float) -> None:
    matte = np.full((20, 31), value, np.float32)

    assert np.array_equal(fill_inside(matte, Image.new("RGB", (40, 30))), matte)


@given(
    matte=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 90), st.integers(1, 90)),
        elements=st.floats(0, 1, width=32),
    ),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_no_value_falls_or_passes_one(matte: Map, size: tuple[int, int]) -> None:
    kept = matte.copy()

    filled = fill_inside(matte, Image.new("RGB", size, RED))

    assert filled.shape == matte.shape
    assert (filled >= matte).all()
    assert filled.max() <= 1
    assert np.array_equal(matte, kept)
