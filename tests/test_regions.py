"""Connected regions of a mask, and their surroundings."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bgx.image.regions import grow_mask, label_regions, measure_regions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def flood(mask: NDArray[np.bool_], diagonal: bool) -> set[frozenset[tuple[int, int]]]:
    """The connected regions, by walking."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    if diagonal:
        steps += [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    parts = set()
    while left:
        part, front = set(), {left.pop()}
        while front:
            y, x = front.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy, dx in steps} & left
            left -= near
            front |= near
        parts.add(frozenset(part))
    return parts


@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)),
    st.booleans(),
)
def test_regions_are_those_one_can_walk(mask: NDArray[np.bool_], diagonal: bool) -> None:
    labels, areas = label_regions(mask, diagonal=diagonal)

    found = {
        frozenset((int(y), int(x)) for y, x in np.argwhere(labels == number))
        for number in range(1, labels.max() + 1)
    }
    assert found == flood(mask, diagonal)
    assert np.array_equal(labels > 0, mask)
    assert areas.tolist() == [0, *np.bincount(labels.ravel())[1:]]


def spiral(side: int) -> NDArray[np.bool_]:
    """A path one pixel wide from a corner to the middle, turns of it one free pixel apart."""
    mask = np.zeros((side, side), np.bool_)
    y, x, dy, dx = 0, -1, 0, 1
    for length in [side, *(rest for rest in range(side - 1, 0, -2) for _ in range(2))]:
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
    return mask


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_long_ways_round_are_one_region(turned: bool, diagonal: bool) -> None:
    comb = np.zeros((41, 40), np.bool_)
    comb[:, ::2] = comb[-1] = True
    snake = np.zeros((40, 41), np.bool_)
    snake[:, ::2] = snake[0, 3::4] = snake[-1, 1::4] = True

    for mask in (spiral(40), comb, snake):
        labels, areas = label_regions(mask[::-1] if turned else mask, diagonal=diagonal)
        assert areas.tolist() == [0, mask.sum()]
        assert labels.max() == 1


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_areas_and_boxes_are_those_of_the_regions_one_can_walk(mask: NDArray[np.bool_]) -> None:
    areas, boxes = measure_regions(mask)

    found = sorted(zip(areas.tolist(), boxes.tolist(), strict=True))
    assert found == sorted(
        (
            len(part),
            [
                min(x for _, x in part),
                min(y for y, _ in part),
                max(x for _, x in part) + 1,
                max(y for y, _ in part) + 1,
            ],
        )
        for part in flood(mask, diagonal=True)
    )


@pytest.mark.parametrize("find", [label_regions, measure_regions])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.5, 0.9])
def test_more_regions_take_no_more_steps_of_python(
    find: Callable[[NDArray[np.bool_]], object], share: float
) -> None:
    """Noise has one for every few pixels, and each step keeps all other threads waiting."""
    noise = np.random.default_rng(0).random((400, 400)) < share

    def count_calls(mask: NDArray[np.bool_]) -> int:
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            find(mask)
        finally:
            sys.setprofile(None)
        return calls

    assert count_calls(noise) < 3 * count_calls(noise[:50, :50])


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)), st.integers(0, 4))
def test_a_grown_mask_reaches_so_far_in_each_direction(
    mask: NDArray[np.bool_], pixels: int
) -> None:
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected[max(0, y - pixels) : y + pixels + 1, max(0, x - pixels) : x + pixels + 1] = True
    assert np.array_equal(grow_mask(mask, pixels), expected)
