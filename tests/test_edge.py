"""A matte with another edge: cut hard, moved, blurred."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw, ImageFilter

from bgx.image.edge import edit_edge

MATTES = arrays.arrays(
    np.uint8,
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.sampled_from([0, 0, 0, 60, 128, 200, 255, 255, 255]),
)
PIXELS = st.sampled_from([0.5, 1, 1.25, 2, 3, 7])


def draw_disc(radius: float, size: int = 400) -> Image.Image:
    """A disc in the middle whose edge is a pixel wide."""
    axis = np.arange(size) - (size - 1) / 2
    away = np.hypot(axis[:, None], axis)
    return Image.fromarray(((radius - away + 0.5).clip(0, 1) * 255).round().astype(np.uint8))


def draw_strips() -> Image.Image:
    """Subjects in some of many tiles, one cut by the border."""
    image = Image.new("L", (1500, 700))
    draw = ImageDraw.Draw(image)
    draw.ellipse((-60, 100, 300, 500), fill=255)
    draw.rectangle((700, 300, 705, 690), fill=255)
    draw.line((900, 650, 1400, 20), fill=190, width=3)
    return image.filter(ImageFilter.BoxBlur(1))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean, in shares of a pixel's alpha along the edge."""
    apart = np.abs(np.asarray(one, float) - np.asarray(other))
    edge = (np.asarray(one) > 0) & (np.asarray(one) < 255)
    return float(apart.sum() / 255 / np.count_nonzero(edge))


@given(MATTES)
def test_nothing_asked_changes_nothing(levels: np.ndarray) -> None:
    alpha = Image.fromarray(levels)
    assert edit_edge(alpha, threshold=None, shift=0, soften=0).tobytes() == alpha.tobytes()


@given(MATTES, st.floats(0.001, 1))
def test_a_threshold_leaves_0_and_255_alone(levels: np.ndarray, threshold: float) -> None:
    hard = np.asarray(edit_edge(Image.fromarray(levels), threshold=threshold))
    assert (hard == np.where(levels / 255 >= threshold, 255, 0)).all()


@given(MATTES, PIXELS)
def test_moving_outwards_adds_and_inwards_takes_away(levels: np.ndarray, pixels: float) -> None:
    alpha = Image.fromarray(levels)
    grown = np.asarray(edit_edge(alpha, shift=pixels))
    shrunk = np.asarray(edit_edge(alpha, shift=-pixels))
    assert (grown >= levels).all()
    assert (shrunk <= levels).all()
    # What the subject wins, the background loses.
    inverse = np.asarray(edit_edge(Image.fromarray(255 - levels), shift=-pixels))
    assert np.abs(grown.astype(int) - (255 - inverse.astype(int))).max() <= 1


@given(MATTES, PIXELS, st.sampled_from([0.0, 1.5]))
def test_one_value_everywhere_stays(levels: np.ndarray, pixels: float, soften: float) -> None:
    for level in (0, 77, 255):
        even = Image.new("L", levels.shape[::-1], level)
        assert edit_edge(even, shift=pixels, soften=soften).getextrema() == (level, level)


@pytest.mark.parametrize("pixels", [1, 2, 3, 5, 12, 100])
def test_a_mask_grows_and_shrinks_by_just_these_pixels(pixels: int) -> None:
    mask = Image.new("L", (600, 600))
    mask.paste(255, (220, 210, 400, 420))
    grown = edit_edge(mask, shift=pixels)
    assert grown.getbbox() == (220 - pixels, 210 - pixels, 400 + pixels, 420 + pixels)
    hole = Image.eval(mask, lambda level: 255 - level)
    shrunk = Image.eval(edit_edge(hole, shift=-pixels), lambda level: 255 - level)
    assert shrunk.tobytes() == grown.tobytes()


@pytest.mark.parametrize("pixels", [-60, -7.5, -2, -1, -0.5, 0.5, 1, 1.5, 2, 2.75, 4, 10, 60])
def test_an_edge_moves_alike_in_all_directions_and_keeps_its_softness(pixels: float) -> None:
    moved = edit_edge(draw_disc(100), shift=pixels)
    assert difference(draw_disc(100 + pixels), moved) < 0.4
    axis = np.arange(400) - 199.5
    angle = np.arctan2(axis[:, None], axis)
    before = np.asarray(draw_disc(100), float)
    after = np.asarray(moved, float)
    whole = 100 * math.sqrt(after.sum() / before.sum())
    assert whole == pytest.approx(100 + pixels, abs=0.2)
    for turn in np.linspace(0, 2 * math.pi, 16, endpoint=False):
        wedge = np.cos(angle - turn) > math.cos(math.pi / 16)
        radius = 100 * math.sqrt(after[wedge].sum() / before[wedge].sum())
        assert radius == pytest.approx(100 + pixels, abs=0.5)


def test_a_soft_edge_stays_as_soft() -> None:
    ramp = np.tile(np.linspace(0, 255, 52).astype(np.uint8), (20, 1))
    levels = np.pad(ramp, ((0, 0), (40, 40)), "edge")
    moved = np.asarray(edit_edge(Image.fromarray(levels), shift=10))
    assert (moved[:, :-10] == levels[:, 10:]).all()


def test_a_blur_is_a_gaussian_s() -> None:
    alpha = Image.new("L", (400, 40))
    alpha.paste(255, (200, 0, 400, 40))
    for sigma in (0.7, 2, 9):
        row = np.asarray(edit_edge(alpha, soften=sigma), float)[20] / 255
        expected = [0.5 * (1 + math.erf((x - 199.5) / sigma / math.sqrt(2))) for x in range(400)]
        assert np.abs(row - expected).max() < 0.05


@pytest.mark.parametrize("edit", [{"soften": 0.5}, {"soften": 3}, {"soften": 40}])
def test_tiles_do_not_show_in_a_blur(edit: dict[str, float]) -> None:
    alpha = draw_strips()
    whole = alpha.filter(ImageFilter.GaussianBlur(edit["soften"]))
    assert edit_edge(alpha, **edit).tobytes() == whole.tobytes()


@pytest.mark.parametrize("pixels", [-3, -0.5, 1, 6, 90])
def test_tiles_do_not_show_in_a_shift(pixels: float) -> None:
    alpha = draw_strips()
    part = (120, 60, 1203, 655)
    reach = math.ceil(abs(pixels))
    inner = (reach, reach, part[2] - part[0] - reach, part[3] - part[1] - reach)
    of_part = edit_edge(alpha.crop(part), shift=pixels).crop(inner)
    of_whole = edit_edge(alpha, shift=pixels).crop(part).crop(inner)
    assert of_part.tobytes() == of_whole.tobytes()


@pytest.mark.parametrize("edit", [{"shift": -5}, {"soften": 4}, {"shift": -1.5, "soften": 1}])
def test_a_subject_that_the_border_cuts_keeps_that_side(edit: dict[str, float]) -> None:
    alpha = Image.new("L", (120, 90))
    alpha.paste(255, (40, 0, 120, 90))
    edited = edit_edge(alpha, **edit)
    assert edited.crop((80, 0, 120, 90)).getextrema() == (255, 255)
    assert edited.getpixel((40, 45)) < 255


def test_the_steps_follow_one_another() -> None:
    alpha = draw_strips()
    by_steps = edit_edge(edit_edge(edit_edge(alpha, threshold=0.3), shift=-1.5), soften=2)
    at_once = edit_edge(alpha, threshold=0.3, shift=-1.5, soften=2)
    assert at_once.tobytes() == by_steps.tobytes()


def test_the_matte_handed_in_is_not_changed() -> None:
    alpha = draw_strips()
    before = alpha.tobytes()
    edit_edge(alpha, threshold=0.5, shift=3, soften=2)
    assert alpha.tobytes() == before
