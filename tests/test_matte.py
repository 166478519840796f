"""From the network's numbers to a matte: full range, no noise made into a subject, never NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from bgx.image.matte import (
    FLAT,
    SUBJECT_ALPHA,
    measure_matte,
    multiply_alpha,
    stretch_matte,
    upsample_matte,
)
from support.pictures import product

if TYPE_CHECKING:
    from numpy.typing import NDArray

_maps = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
_any_float = st.floats(width=32)
_probabilities = st.floats(0, 1, width=32)


@given(arrays(np.float32, _maps, elements=st.floats(-100, 100, width=32)))
def test_a_map_is_stretched_to_the_full_range_or_empty(values: NDArray[np.float32]) -> None:
    matte = stretch_matte(values)
    assert matte.dtype == np.float32
    assert matte.shape == values.shape
    if float(values.max()) - float(values.min()) < FLAT:
        assert not matte.any()
        return
    assert matte.min() == 0
    assert matte.max() == pytest.approx(1, abs=1e-5)
    expected = (values.astype(np.float64) - values.min()) / (float(values.max()) - values.min())
    assert np.abs(matte - expected).max() < 1e-4


@given(arrays(np.float32, _maps, elements=_any_float))
def test_whatever_the_network_says_the_matte_is_finite(values: NDArray[np.float32]) -> None:
    matte = stretch_matte(values)
    assert np.isfinite(matte).all()
    assert upsample_matte(values, (5, 7)).size == (5, 7)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((4, 4)),
        np.ones((4, 4)),
        np.random.default_rng(0).uniform(0.5, 0.5 + 0.9 * FLAT, (320, 320)),
        np.full((4, 4), np.nan),
        np.array([[0.0, 1.0], [np.nan, 0.5]]),
        np.array([[0.0, 1.0], [np.inf, 0.5]]),
        np.array([[0.0, 1.0], [-np.inf, 0.5]]),
    ],
    ids=["black", "white", "noise", "undefined", "partly undefined", "infinite", "minus infinite"],
)
def test_a_flat_or_undefined_map_has_no_subject(values: NDArray[Any]) -> None:
    matte = upsample_matte(stretch_matte(values.astype(np.float32)), (30, 20))
    assert matte.getextrema() == (0, 0)
    assert measure_matte(matte) == (0.0, None)


def test_the_map_given_stays_untouched() -> None:
    values = np.array([[0.2, 0.9]], np.float32)
    values.flags.writeable = False
    stretch_matte(values)
    upsample_matte(values, (4, 4))


@given(
    values=arrays(np.float32, _maps, elements=_probabilities),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_upsampling_keeps_the_size_asked_for_and_stays_in_range(
    values: NDArray[np.float32], size: tuple[int, int]
) -> None:
    matte = upsample_matte(values, size)
    assert (matte.mode, matte.size) == ("L", size)


@given(
    values=arrays(np.uint8, _maps, elements=st.sampled_from([0, 0, 0, 1, 128, 255])),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_enlarged_is_what_pillow_gives_but_for_rounding(
    values: NDArray[np.uint8], size: tuple[int, int]
) -> None:
    matte = upsample_matte((values + np.float32(0.25)) / np.float32(255), size)
    resized = Image.fromarray(values).resize(size, Image.Resampling.LANCZOS)
    difference = np.asarray(matte, np.int16) - np.asarray(resized, np.int16)
    assert np.abs(difference).max() <= 2  # one in each direction


@given(value=_probabilities, size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_an_even_matte_stays_even(value: float, size: tuple[int, int]) -> None:
    matte = upsample_matte(np.full((9, 9), value, np.float32), size)
    assert matte.getextrema() == (int(np.float32(value) * np.float32(255)),) * 2


def test_values_beyond_the_range_are_clipped_not_wrapped() -> None:
    matte = upsample_matte(np.array([[-3.0, 7.0], [np.nan, np.inf]], np.float32), (2, 2))
    assert list(matte.tobytes()) == [0, 255, 0, 255]


@pytest.mark.parametrize("size", [(640, 480), (481, 359), (1, 20000), (20000, 1), (1, 1)])
def test_upsampling_does_not_move_the_subject(size: tuple[int, int]) -> None:
    _, small = product((320, 240))
    matte = upsample_matte(np.asarray(small, np.float32) / 255, size)
    expected = small.resize(
        size, Image.Resampling.BOX if min(size) == 1 else Image.Resampling.BICUBIC
    )
    assert abs(_centre(matte) - _centre(expected)).max() < 0.002


def _centre(matte: Image.Image) -> NDArray[np.float64]:
    """The matte's centre of mass as shares of width and height."""
    values = np.asarray(matte, np.float64)
    rows, columns = (np.arange(length) + 0.5 for length in values.shape)
    return np.array(
        [
            (values.sum(axis=0) * columns).sum() / values.sum() / len(columns),
            (values.sum(axis=1) * rows).sum() / values.sum() / len(rows),
        ]
    )


def test_a_photo_s_own_alpha_multiplies_the_matte() -> None:
    matte = Image.frombytes("L", (4, 1), bytes([255, 255, 128, 0]))
    alpha = Image.frombytes("L", (4, 1), bytes([255, 100, 128, 255]))
    assert list(multiply_alpha(matte, alpha).tobytes()) == [255, 100, 64, 0]
    assert multiply_alpha(matte, None) is matte


@given(
    arrays(
        np.uint8,
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30),
        elements=st.sampled_from([0, 1, SUBJECT_ALPHA - 1, SUBJECT_ALPHA, 128, 255]),
        fill=st.just(0),
    )
)
def test_coverage_and_box_are_what_counting_gives(values: NDArray[np.uint8]) -> None:
    coverage, box = measure_matte(Image.fromarray(values))
    assert coverage == pytest.approx(values.mean() / 255)
    rows, columns = np.nonzero(values >= SUBJECT_ALPHA)
    if rows.size == 0:
        assert box is None
    else:
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert all(type(edge) is int for edge in box)


def test_a_full_matte_covers_everything() -> None:
    assert measure_matte(Image.new("L", (40, 30), 255)) == (1.0, (0, 0, 40, 30))
