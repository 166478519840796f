"""Refinement: the matte takes the photo's edges, and only where the photo has something to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bgx.image.matte import upsample_matte
from bgx.image.refine import refine_matte
from bgx.image.tiles import TILE, Enlarger, tile_box

Map = NDArray[np.float32]


def disc(size: tuple[int, int], softness: float) -> Map:
    """A round subject in the middle, half as wide as the shorter side, with a soft edge."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    away = np.hypot(x + 0.5 - width / 2, y + 0.5 - height / 2)
    return ((min(size) / 4 - away) / softness + 0.5).clip(0, 1).astype(np.float32)


def photograph(alpha: Map, subject: object, backdrop: object, noise: float = 0) -> Image.Image:
    mixed = alpha[..., None] * np.array(subject) + (1 - alpha[..., None]) * np.array(backdrop)
    mixed += np.random.default_rng(1).normal(0, noise, mixed.shape) if noise else 0
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))


def look(alpha: Map) -> Map:
    """What a network makes of it: 320 x 320, with edges some pixels soft."""
    small = Image.fromarray(alpha).resize((80, 80), Image.Resampling.BOX)
    seen: Map = np.asarray(small.resize((320, 320), Image.Resampling.BICUBIC)).clip(0, 1)
    return seen


def refine(matte: Map, photo: Image.Image) -> Map:
    working = photo.copy()
    working.thumbnail((800, 800))
    refined = refine_matte(matte, working, photo)
    assert (refined.mode, refined.size) == ("L", photo.size)
    return np.asarray(refined, np.float32) / np.float32(255)


def enlarge(matte: Map, photo: Image.Image) -> Map:
    return np.asarray(upsample_matte(matte, photo.size), np.float32) / np.float32(255)


@pytest.mark.parametrize("size", [(1600, 1200), (700, 900), (320, 320), (1999, 411)])
@pytest.mark.parametrize("noise", [0, 6])
def test_edges_become_the_photos_own(size: tuple[int, int], noise: float) -> None:
    truth = disc(size, 1.5)
    photo = photograph(truth, (200, 60, 40), (60, 90, 120), noise)
    matte = look(truth)

    before = np.abs(enlarge(matte, photo) - truth).mean()
    after = np.abs(refine(matte, photo) - truth).mean()

    assert after < before / 4


def test_strands_the_network_was_unsure_of_are_found() -> None:
    size = (800, 600)
    truth = disc(size, 1.5)
    matte = look(truth)
    doubted = np.asarray(Image.fromarray(matte).resize(size)) > 0.3
    strands = np.zeros_like(truth, bool)
    strands[:, ::12] = True
    truth[strands & doubted] = 1

    refined = refine(matte, photograph(truth, (230, 210, 160), (30, 40, 60)))

    rim = doubted & (disc(size, 1.5) == 0)
    assert refined[rim & strands].mean() > 0.8
    assert refined[rim & ~strands].mean() < 0.1


def test_where_both_sides_look_alike_the_networks_matte_stays() -> None:
    truth = disc((800, 600), 1.5)
    photo = photograph(truth, (120, 120, 120), (120, 120, 120), noise=8)
    matte = look(truth)

    refined, plain = refine(matte, photo), enlarge(matte, photo)

    unsure = (plain > 0.05) & (plain < 0.75)
    difference = np.abs(refined - plain)[unsure]
    # Grain that happens to rise with the matte shows a little.
    assert difference.mean() < 0.03
    assert np.percentile(difference, 99) < 0.11
    assert refined[plain == 0].mean() < 0.001
    assert (refined - plain)[plain >= 0.85].mean() > 0


def test_a_stripe_across_subject_and_background_alike_is_no_edge() -> None:
    truth = disc((800, 600), 1.5)
    pixels = np.array(photograph(truth, (200, 60, 40), (60, 90, 120)))
    pixels[250:350] = (90, 160, 70)
    photo = Image.fromarray(pixels)
    matte = look(truth)

    inside = np.asarray(Image.fromarray(matte).resize(photo.size)) > 0.97
    assert refine(matte, photo)[inside].min() > 0.95


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 1.0])
def test_a_matte_without_contour_passes_unchanged(value: float) -> None:
    photo = photograph(disc((500, 400), 2), (200, 60, 40), (60, 90, 120), noise=10)

    refined = refine(np.full((320, 320), value, np.float32), photo)

    assert np.abs(refined - value).max() <= 1 / 255


def test_a_large_part_the_network_is_undecided_about_stays_undecided() -> None:
    truth = disc((800, 600), 1.5)
    photo = photograph(truth, (200, 60, 40), (60, 90, 120), noise=4)
    matte = look(truth)
    matte[130:190, 130:190] = 0.5

    middle = refine(matte, photo)[270:330, 370:430]

    assert np.abs(middle - 0.5).max() < 0.05


def test_hair_is_followed_beyond_the_networks_matte_but_not_far() -> None:
    size = (800, 600)
    truth = disc(size, 1.5)
    matte = look(truth)
    unseen = np.asarray(Image.fromarray(matte).resize(size)) == 0
    truth[298:302, 400:] = 1

    refined = refine(matte, photograph(truth, (230, 210, 160), (30, 40, 60)))

    beyond = refined[300] * (unseen[300] & (np.arange(800) > 400))
    assert 3 < np.count_nonzero(beyond > 0.5) < 0.04 * 800


def test_what_the_network_is_sure_of_is_fully_opaque() -> None:
    truth = disc((800, 600), 1.5)
    matte = look(truth)
    photo = photograph(truth, (200, 60, 40), (60, 90, 120))

    levels, plain = np.rint(refine(matte, photo) * 255), enlarge(matte, photo)

    inside = truth == 1
    assert levels[inside & (plain < 0.8)].min() >= 240
    assert (levels[inside & (plain > 0.95)] == 255).mean() > 0.999


@pytest.mark.parametrize(
    ("value", "expected"), [(0.015, 0.0), (0.74, 0.74), (0.8, 0.92), (0.86, 1.0)]
)
def test_of_what_the_network_is_nearly_sure_it_is_sure(value: float, expected: float) -> None:
    photo = photograph(disc((500, 400), 2), (200, 60, 40), (60, 90, 120), noise=10)

    refined = refine(np.full((320, 320), value, np.float32), photo)

    assert np.abs(refined - expected).max() <= 1 / 255


def test_soft_edges_of_a_subject_that_its_colours_tell_stay_soft() -> None:
    truth = disc((800, 600), 40)
    photo = photograph(truth, (200, 60, 40), (60, 90, 120))

    refined = refine(np.asarray(Image.fromarray(truth).resize((320, 320))), photo)

    soft = (truth > 0.76) & (truth < 0.84)
    assert np.abs(refined - truth)[soft].mean() < 0.05


def test_grain_of_the_subjects_colour_is_no_hair() -> None:
    truth = disc((800, 600), 1.5)
    pixels = np.array(photograph(truth, (200, 60, 40), (60, 90, 120)))
    near = (disc((800, 600), 60) > 0) & (truth == 0)
    grain = near & (np.random.default_rng(2).random(truth.shape) < 0.01)
    pixels[grain] = (200, 60, 40)

    refined = refine(look(truth), Image.fromarray(pixels))

    assert grain.sum() > 100
    assert refined[grain].mean() < 0.1


@pytest.mark.parametrize("tone", [0, 60, 128])
def test_grey_before_grey_is_as_good_as_colours(tone: int) -> None:
    truth = disc((1600, 1200), 1.5)
    photo = photograph(truth, (tone,) * 3, (255,) * 3, noise=1)

    refined = refine(look(truth), photo)

    assert np.abs(refined - truth).mean() < 0.001
    assert (refined[disc((1600, 1200), 1.5) == 0] > 0.04).mean() < 0.002


def test_nothing_appears_where_the_network_saw_nothing_and_no_hole_in_what_it_saw() -> None:
    truth = disc((800, 600), 1.5)
    pixels = np.array(photograph(truth, (200, 60, 40), (60, 90, 120)))
    pixels[20:60, 20:60] = (200, 60, 40)
    pixels[290:310, 390:410] = (60, 90, 120)

    for sure in (1.0, 0.985):
        refined = refine(look(truth) * np.float32(sure), Image.fromarray(pixels))

        assert not refined[20:60, 20:60].any()
        assert (refined[290:310, 390:410] == 1).all()


@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(0, 9),
)
def test_any_sizes_go_together(
    size: tuple[int, int], matte_size: tuple[int, int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    photo = Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), np.uint8))
    matte = generator.random(matte_size[::-1], np.float32)

    refine(matte, photo)


def test_the_matte_and_the_photo_are_not_changed() -> None:
    truth = disc((300, 200), 1.5)
    photo = photograph(truth, (200, 60, 40), (60, 90, 120))
    matte = look(truth)
    kept, pixels = matte.copy(), photo.tobytes()

    refine_matte(matte, photo, photo)

    assert np.array_equal(matte, kept)
    assert photo.tobytes() == pixels


def count_tiles(size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of tiles that cover a picture of size (width, height)."""
    width, height = size
    return -(-height // TILE), -(-width // TILE)


@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_tiles_join_to_what_pillow_enlarges(grid: tuple[int, int], size: tuple[int, int]) -> None:
    grid = (min(grid[0], size[0]), min(grid[1], size[1]))
    coarse = np.random.default_rng(3).random(grid[::-1], np.float32)
    enlarger = Enlarger(coarse[None], size)
    whole = np.full(size[::-1], np.nan, np.float32)

    rows, columns = count_tiles(size)
    for row in range(rows):
        for column in range(columns):
            left, top, right, bottom = tile_box(row, column, size)
            whole[top:bottom, left:right] = enlarger.enlarge(row, column)[0]

    expected = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    # At the picture's edge Pillow leaves samples out, bgx repeats the last.
    margin = tuple(
        np.s_[2 * -(-s // g) : s - 2 * -(-s // g)] for s, g in zip(size, grid, strict=True)
    )
    inner = (margin[1], margin[0])
    assert np.isfinite(whole).all()
    assert np.allclose(whole[inner], expected[inner], atol=2e-3)


def test_the_range_of_a_tile_holds_all_its_samples() -> None:
    size = (5 * TILE + 7, 3 * TILE + 1)
    coarse = np.random.default_rng(3).random((1, 40, 50), np.float32)
    enlarger = Enlarger(coarse, size)

    low, high = enlarger.ranges()

    assert low.shape == high.shape == (1, *count_tiles(size))
    for row in range(count_tiles(size)[0]):
        for column in range(count_tiles(size)[1]):
            values = enlarger.enlarge(row, column)
            reach = 0.3 * (high[0, row, column] - low[0, row, column])
            assert low[0, row, column] - reach <= values.min()
            assert values.max() <= high[0, row, column] + reach
