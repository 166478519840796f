"""One of several subjects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFilter

from bgx.image.parts import find_part
from bgx.image.regions import label_regions

BOXES = {"large": (20, 20, 120, 160), "middle": (150, 80, 170, 120), "small": (190, 10, 200, 20)}


def draw(*names: str, size: tuple[int, int] = (300, 200)) -> Image.Image:
    alpha = Image.new("L", size)
    for name in names:
        alpha.paste(255, BOXES[name])
    return alpha


def shown(alpha: Image.Image, part: Image.Image) -> list[str]:
    """The names of the boxes of the matte that are kept, all of each."""
    kept = ImageChops.multiply(alpha, part.resize(alpha.size))
    return [name for name, box in BOXES.items() if kept.crop(box).getextrema() == (255, 255)]


def test_the_largest() -> None:
    alpha = draw("large", "middle", "small")
    part = find_part(alpha, "largest")
    assert part is not None
    assert shown(alpha, part) == ["large"]


def test_the_nearest_to_the_middle() -> None:
    alpha = draw("large", "middle", "small")
    part = find_part(alpha, "centre")
    assert part is not None
    assert shown(alpha, part) == ["middle"]


def test_nearness_is_that_of_the_part_s_nearest_pixel() -> None:
    alpha = draw("large", "small")
    part = find_part(alpha, "centre")
    assert part is not None
    assert shown(alpha, part) == ["large"]


def test_a_speck_in_the_middle_is_no_subject() -> None:
    alpha = draw("large", "middle")
    alpha.paste(255, (149, 60, 152, 63))
    alpha.paste(0, BOXES["middle"])
    part = find_part(alpha, "centre")
    assert part is not None
    assert shown(alpha, part) == ["large"]


@pytest.mark.parametrize("which", ["largest", "centre"])
@pytest.mark.parametrize("names", [(), ("large",), ("small",)])
def test_there_is_nothing_to_choose(which: str, names: tuple[str, ...]) -> None:
    assert find_part(draw(*names), which) is None  # type: ignore[arg-type]


def test_soft_edges_go_with_their_part() -> None:
    alpha = draw("large", "middle").filter(ImageFilter.GaussianBlur(5))
    part = find_part(alpha, "largest")
    assert part is not None
    # Half way between the two, in a row that meets both.
    [mask] = np.asarray(part.resize(alpha.size).crop((0, 100, 300, 101)))
    assert (mask[:134] == 255).all()
    assert not mask[136:].any()


def test_of_a_large_matte_a_small_mask() -> None:
    alpha = draw("large", "middle").resize((4500, 3000))
    part = find_part(alpha, "centre")
    assert part is not None
    assert part.size == (1024, 683)
    left, top, right, bottom = (15 * side for side in BOXES["middle"])
    mask = part.resize(alpha.size, Image.Resampling.BILINEAR)
    assert mask.crop((left, top, right, bottom)).getextrema() == (255, 255)
    assert mask.crop((300, 300, 1800, 2400)).getextrema() == (0, 0)


@given(
    st.lists(st.tuples(*4 * [st.integers(0, 30)]), min_size=1, max_size=6),
    st.sampled_from(["largest", "centre"]),
)
def test_of_all_parts_one_is_kept_whole(boxes: list[tuple[int, ...]], which: str) -> None:
    alpha = Image.new("L", (64, 64))
    for left, top, width, height in boxes:
        alpha.paste(255, (left, top, left + width + 1, top + height + 1))
    part = find_part(alpha, which)  # type: ignore[arg-type]
    labels, areas = label_regions(np.asarray(alpha) > 0)
    if part is None:
        assert areas.size == 2
        return
    kept = set(labels[np.asarray(part) == 255].tolist()) - {0}
    dropped = set(labels[np.asarray(part) == 0].tolist()) - {0}
    assert len(kept) == 1
    assert not kept & dropped
