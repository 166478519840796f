"""Sums over windows are what adding up cell by cell gives."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bgx.image.window import share_undecided, sum_window


@settings(max_examples=40)
@given(
    count=st.integers(1, 3),
    rows=st.integers(1, 80),
    columns=st.integers(1, 80),
    radius=st.integers(0, 90),
)
def test_each_cell_has_the_sum_of_those_around_it(
    count: int, rows: int, columns: int, radius: int
) -> None:
    maps = np.random.default_rng(3).integers(0, 9, (count, rows, columns)).astype(np.float32)
    total = np.zeros((count, rows + 1, columns + 1))
    total[:, 1:, 1:] = maps.cumsum(1).cumsum(2)
    top, bottom = (np.clip(np.arange(rows) + edge, 0, rows) for edge in (-radius, radius + 1))
    left, right = (np.clip(np.arange(columns) + edge, 0, columns) for edge in (-radius, radius + 1))
    wanted = (
        total[:, bottom][:, :, right]
        - total[:, top][:, :, right]
        - total[:, bottom][:, :, left]
        + total[:, top][:, :, left]
    )
    assert np.array_equal(sum_window(maps, radius), wanted)


def test_the_undecided_share_counts_what_there_is_of_a_window() -> None:
    alpha = np.zeros((9, 9), np.float32)
    alpha[0] = 0.5
    share = share_undecided(alpha, 1)
    assert share[0, 0] == share[0, 4] == 0.5  # two rows of the window are in the picture
    assert share[1, 4] == np.float32(1 / 3)
    assert share[2, 4] == 0
