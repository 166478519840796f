"""Trust: the measurements that show which mattes need a look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from bgx.image.matte import stretch_matte, upsample_matte
from bgx.image.trust import DOUBTFUL, Trust, measure_trust

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

NOTHING = Trust(0.0, (), 0.0, 0)


def draw(
    *boxes: tuple[int, int, int, int], size: tuple[int, int] = (40, 60)
) -> NDArray[np.float32]:
    """A map of 0 with boxes (left, top, right, bottom) of 1. size: height and width."""
    values = np.zeros(size, np.float32)
    for left, top, right, bottom in boxes:
        values[top:bottom, left:right] = 1
    return values


def judge(values: NDArray[np.float32]) -> Trust:
    return measure_trust(values, values)


_maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(0, 1, width=32),
)


# Confidence ---------------------------------------------------------------------------------------


@given(_maps)
def test_a_map_without_doubt_is_trusted_fully(values: NDArray[np.float32]) -> None:
    sure = np.round(values)
    assume(sure.any())

    assert judge(sure).confidence == 1


def test_confidence_is_the_overlap_to_be_expected() -> None:
    values = draw((0, 0, 10, 10))  # 100 pixels that are certain,
    values[0, 10:30] = 0.5  # 20 that are counted in and may be wrong,
    values[20, 10:30] = 0.25  # 20 that are left out and may be wrong

    assert judge(values).confidence == pytest.approx((100 + 10) / (120 + 5))


@given(_maps, st.floats(0.1, 0.9))
def test_a_fainter_map_is_trusted_less_though_its_matte_is_the_same(
    values: NDArray[np.float32], strength: float
) -> None:
    matte = stretch_matte(values)
    assume(matte.any())
    faint = values * np.float32(strength)

    assert measure_trust(faint, matte).confidence < measure_trust(values, matte).confidence


def test_the_same_soft_edge_counts_more_around_a_small_subject() -> None:
    large, small = draw((10, 10, 50, 30)), draw((10, 10, 20, 15))
    for values in (large, small):
        values[(np.roll(values, 1, axis=1) > 0) & (values == 0)] = 0.4

    assert judge(small).confidence < judge(large).confidence


@given(_maps)
def test_confidence_does_not_depend_on_where_things_are(values: NDArray[np.float32]) -> None:
    turned = np.ascontiguousarray(np.rot90(values))

    assert judge(turned).confidence == pytest.approx(judge(values).confidence)


@given(
    hnp.arrays(
        np.float32,
        (6, 6),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_any_values_at_all_give_figures_in_range(values: NDArray[np.float32]) -> None:
    trust = judge(values)

    assert 0 <= trust.confidence <= 1
    assert 0 <= trust.fill <= 1
    assert (trust.subjects == 0) == (trust == NOTHING)


@pytest.mark.parametrize("values", [0.0, 0.49, np.nan])
def test_a_map_without_a_subject_is_not_trusted(values: float) -> None:
    trust = judge(np.full((8, 8), values, np.float32))

    assert trust == NOTHING
    assert trust.doubtful


def test_doubtful_is_below_one_limit() -> None:
    assert not Trust(DOUBTFUL, (), 0.5, 1).doubtful
    assert Trust(DOUBTFUL - 0.001, (), 0.5, 1).doubtful


# Border, size, number -----------------------------------------------------------------------------


@given(st.data())
def test_touched_sides_and_fill_of_a_box(data: st.DataObject) -> None:
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    left, top = data.draw(st.tuples(st.integers(0, width - 1), st.integers(0, height - 1)))
    right, bottom = data.draw(st.tuples(st.integers(left + 1, width), st.integers(top + 1, height)))
    trust = judge(draw((left, top, right, bottom), size=(height, width)))
    reached = {"left": left == 0, "top": top == 0, "right": right == width}
    reached["bottom"] = bottom == height

    assert trust.touches_border == tuple(side for side, touched in reached.items() if touched)
    assert trust.fill == pytest.approx(max((right - left) / width, (bottom - top) / height))
    assert trust.subjects == 1


@pytest.mark.parametrize(
    ("boxes", "number"),
    [
        ([(5, 5, 20, 20), (30, 5, 45, 20)], 2),  # a pair
        ([(5, 5, 20, 20), (20, 20, 30, 30)], 1),  # joined by a corner
        ([(5, 5, 20, 20), (21, 5, 30, 30), (35, 5, 40, 10)], 3),
        ([(5, 5, 25, 25), (40, 5, 42, 6)], 2),  # 2 of 400 pixels: just no speck
        ([(5, 5, 25, 25), (40, 5, 41, 6)], 1),  # 1 of 400: a speck
    ],
)
def test_subjects_are_regions_that_are_no_specks(
    boxes: Sequence[tuple[int, int, int, int]], number: int
) -> None:
    assert judge(draw(*boxes)).subjects == number


def test_specks_neither_touch_the_border_nor_widen_the_subject() -> None:
    trust = judge(draw((10, 10, 40, 30), (59, 0, 60, 2)))

    assert trust.touches_border == ()
    assert trust.fill == 0.5


def test_a_faint_haze_is_no_subject() -> None:
    values = draw((10, 10, 40, 30))
    values[values == 0] = 0.3

    assert judge(values).touches_border == ()
    assert judge(values).fill == 0.5


# Real photos --------------------------------------------------------------------------------------


@pytest.mark.weights
def test_confidence_ranks_real_photos_as_their_true_masks_do(weights: Path, shared: Path) -> None:
    from bgx.image.read import read_photo
    from bgx.model.opening import open_session
    from bgx.model.store import Store
    from bgx.run.picture import make_tensor
    from bgx.settings import DeviceSettings, ModelSettings, ReadSettings

    store = Store(ModelSettings(offline=True))
    file = store.resolve(str(weights), store.registry())
    session = open_session(file, DeviceSettings("cpu"), store, pictures=1)
    confidences, overlaps = [], []
    for photo in sorted((shared / "salient_dev" / "images").iterdir())[::3]:
        decoded = read_photo(photo, ReadSettings(), name=photo.name)
        [values] = session.run(make_tensor(decoded, session.entry))
        matte = stretch_matte(values)
        with Image.open(shared / "salient_dev" / "masks" / f"{photo.stem}.png") as mask:
            true = np.asarray(mask.convert("L")) >= 128
        found = np.asarray(upsample_matte(matte, true.shape[::-1])) >= 128
        confidences.append(measure_trust(values, matte).confidence)
        overlaps.append(np.count_nonzero(found & true) / np.count_nonzero(found | true))
    [[_, correlation], _] = np.corrcoef(np.argsort(np.argsort([confidences, overlaps])))

    assert correlation > 0.6  # Spearman's
