"""Cleaning a matte: slips go, the subject and its soft edges stay."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bgx.image.clean import PINHOLE, SPECK, VEIL, clean_matte

Map = NDArray[np.float32]


def disc(size: int = 320, radius: float = 90, softness: float = 6) -> Map:
    """A round subject in the middle with an edge that many pixels soft."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return ((radius - np.hypot(x, y)) / softness + 0.5).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_or_nothing_stays(value: float) -> None:
    matte = np.full((320, 320), value, np.float32)

    assert np.array_equal(clean_matte(matte), matte)


def test_a_clean_subject_keeps_its_soft_edge() -> None:
    matte = disc()

    cleaned = clean_matte(matte)

    assert np.abs(cleaned - matte).max() <= VEIL
    soft = (matte > 2 * VEIL) & (matte < 1 - 2 * VEIL)
    assert ((cleaned > 0) & (cleaned < 1))[soft].all()


def test_specks_go_with_their_fringe_and_parts_stay() -> None:
    matte = disc()
    matte[10:14, 10:14] = 0.2
    matte[11:13, 11:13] = 1.0
    part = int(np.sqrt(SPECK * (matte > 0.5).sum())) + 3
    matte[290 : 290 + part, 20 : 20 + part] = 1.0

    cleaned = clean_matte(matte)

    assert not cleaned[:30, :30].any()
    assert (cleaned[290 : 290 + part, 20 : 20 + part] == 1).all()


def test_a_faint_fringe_of_a_speck_does_not_take_the_subject_along() -> None:
    matte = disc()
    edge = 160 + 90 + 5
    matte[158:161, edge : edge + 2] = 0.9

    cleaned = clean_matte(matte)

    assert np.abs(cleaned - matte)[:, : edge - 4].max() <= VEIL


def test_pin_holes_close_and_true_holes_stay() -> None:
    matte = disc()
    matte[150:152, 150:153] = 0.3
    side = int(np.sqrt(PINHOLE * (matte > 0.5).sum())) + 3
    matte[200 : 200 + side, 160 : 160 + side] = 0.0

    cleaned = clean_matte(matte)

    assert (cleaned[140:160, 140:160] == 1).all()
    assert not cleaned[200 : 200 + side, 160 : 160 + side].any()


def test_a_large_soft_part_inside_is_not_decided() -> None:
    matte = disc()
    matte[130:190, 130:190] = 0.5

    assert (clean_matte(matte)[130:190, 130:190] == 0.5).all()


def test_a_notch_at_the_pictures_edge_is_no_pin_hole() -> None:
    matte = np.ones((64, 64), np.float32)
    matte[0, 30] = 0.0

    assert clean_matte(matte)[0, 30] == 0


def test_the_networks_map_is_not_changed() -> None:
    matte = disc()
    matte[11:13, 11:13] = 1.0
    before = matte.copy()

    clean_matte(matte)

    assert np.array_equal(matte, before)
