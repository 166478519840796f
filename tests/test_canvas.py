"""Where a subject stands in the finished picture, to the pixel, and the pixels put there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from bgx.errors import UsageError
from bgx.image.canvas import Placement, find_subject, place, put_on_canvas
from bgx.image.matte import SUBJECT_ALPHA
from bgx.options import CanvasSettings, settle
from bgx.settings import Align, Area, Length, Margins
from support.pictures import product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgx.image.tiles import Box

_sides = st.integers(1, 700)


@st.composite
def _subjects(draw: st.DrawFn) -> tuple[tuple[int, int], Box]:
    """A photo's size and a box in it: odd sizes, at the border, the whole frame."""
    width, height = draw(_sides), draw(_sides)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return (width, height), (left, top, right, bottom)


def _size(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _gaps(placement: Placement) -> tuple[int, int, int, int]:
    """Left, top, right, bottom."""
    left, top, right, bottom = placement.target
    return left, top, placement.size[0] - right, placement.size[1] - bottom


@given(_subjects())
def test_nothing_asked_is_the_photo_as_it_is(subject: tuple[tuple[int, int], Box]) -> None:
    size, box = subject
    whole = (0, 0, *size)
    assert place(size, box, CanvasSettings()) == Placement(whole, size, whole)


@given(_subjects(), st.integers(0, 90))
def test_a_crop_is_the_subject_and_its_margin(
    subject: tuple[tuple[int, int], Box], margin: int
) -> None:
    size, box = subject
    assert place(size, box, CanvasSettings(crop=True)).size == _size(box)
    placement = place(size, box, CanvasSettings(margin=Margins.even(Length(margin, "px"))))
    assert placement.source == box
    assert _size(placement.target) == _size(box)
    assert _gaps(placement) == (margin,) * 4


@given(_subjects(), st.integers(0, 100))
def test_a_margin_in_percent_is_of_the_longer_side(
    subject: tuple[tuple[int, int], Box], percent: int
) -> None:
    size, box = subject
    placement = place(size, box, CanvasSettings(margin=Margins.even(Length(percent, "%"))))
    assert _gaps(placement) == (round(percent / 100 * max(_size(box))),) * 4


_percent = st.integers(0, 100)


@given(_subjects(), st.tuples(*4 * [st.integers(0, 50)]), st.sampled_from(["px", "%"]))
def test_each_side_has_its_own_margin(
    subject: tuple[tuple[int, int], Box], sides: tuple[int, int, int, int], unit: str
) -> None:
    size, box = subject
    margin = " ".join(f"{side}{unit}" for side in sides)
    placement = place(size, box, settle({"margin": margin}).canvas)
    longest = 100 if unit == "px" else max(_size(box))
    top, right, bottom, left = (round(side / 100 * longest) for side in sides)
    assert _gaps(placement) == (left, top, right, bottom)
    assert _size(placement.target) == _size(box)


@given(_subjects(), _percent, _percent)
def test_a_subject_stands_where_the_free_room_is_shared_as_asked(
    subject: tuple[tuple[int, int], Box], across: int, down: int
) -> None:
    size, box = subject
    canvas = settle({"canvas": "original", "align": f"{across}% {down}%"}).canvas
    placement = place(size, box, canvas)
    assert (placement.size, _size(placement.target)) == (size, _size(box))
    left, top, right, bottom = _gaps(placement)
    assert left == pytest.approx((left + right) * across / 100, abs=1)
    assert top == pytest.approx((top + bottom) * down / 100, abs=1)


@given(
    st.integers(1, 4), st.integers(0, 2000), st.integers(1, 1000), st.lists(_percent, min_size=4)
)
def test_on_a_narrow_photos_canvas_a_subject_stays_whole_whatever_its_margins(
    width: int, top: int, height: int, sides: list[int]
) -> None:
    margin = " ".join(f"{side}%" for side in sides[:4])
    canvas = settle({"canvas": "original", "margin": margin}).canvas

    placement = place((width, 3000), (0, top, width, top + height), canvas)

    assert min(_gaps(placement)) >= 0


@given(_subjects())
def test_at_its_original_place_a_subject_stays_where_it_was(
    subject: tuple[tuple[int, int], Box],
) -> None:
    size, box = subject
    canvas = settle({"canvas": "original", "align": "original"}).canvas
    assert place(size, box, canvas).target == pytest.approx(box, abs=1)
    grown = settle({"canvas": "original", "align": "original", "fill": "100%", "upscale": True})
    placement = place(size, box, grown.canvas)
    assert placement.size == size
    assert min(_gaps(placement)) >= 0


_aspects = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.sampled_from([(1, 100), (100, 1)])


def _has_aspect(size: tuple[int, int], aspect: tuple[int, int]) -> bool:
    """To the nearest pixel; a picture has at least one."""
    (width, height), (across, down) = size, aspect
    near = abs(width - height * across / down), abs(height - width * down / across)
    return min(near) <= 0.5 + 1e-9 or min(size) == 1


@given(_subjects(), st.integers(1, 400_000), st.booleans(), st.none() | _aspects)
def test_megapixels_are_a_limit_in_the_same_shape(
    subject: tuple[tuple[int, int], Box],
    pixels: int,
    crop: bool,
    aspect: tuple[int, int] | None,
) -> None:
    size, box = subject
    whole = place(size, box, CanvasSettings(crop=crop, aspect=aspect))
    placement = place(size, box, CanvasSettings(crop=crop, aspect=aspect, resize=Area(pixels)))
    width, height = placement.size
    if whole.size[0] * whole.size[1] <= pixels:
        assert placement == whole
        return
    assert width * height <= pixels
    assert _has_aspect(placement.size, aspect or whole.size)
    assert width <= whole.size[0]
    assert height <= whole.size[1]
    short, long = sorted(aspect or whole.size)
    # One pixel longer, and it would be too large or no longer in this shape.
    longer = max(placement.size) + 1
    assert longer**2 * short > pixels * long or longer * max(1, round(longer * short / long)) > min(
        pixels, longer * (min(placement.size) + 0.5)
    )
    if aspect is None:
        assert placement.target == (0, 0, width, height)
    assert min(_gaps(placement)) >= 0
    assert placement.source == whole.source


@given(_subjects(), st.integers(1, 900), st.integers(1, 900))
def test_the_photos_own_canvas_keeps_its_shape_in_any_box(
    subject: tuple[tuple[int, int], Box], width: int, height: int
) -> None:
    size, box = subject
    canvas = CanvasSettings(original=True, resize=(width, height))
    placement = place(size, box, canvas)
    assert placement.size == place(size, None, CanvasSettings(resize=(width, height))).size


def test_exact_megapixels_lose_no_pixel_to_rounding() -> None:
    canvas = settle({"resize": "0.25MP"}).canvas
    assert place((1000, 640), None, canvas).size == (625, 400)
    assert place((1600, 1600), None, canvas).size == (500, 500)
    assert place((400, 300), None, canvas).size == (400, 300)
    narrow = settle({"canvas": "1:100", "resize": "0.01MP"}).canvas
    assert place((80, 12003), (0, 0, 80, 12003), narrow).size == (10, 1000)


def test_the_photos_own_canvas_fits_a_box_as_a_whole() -> None:
    canvas = settle({"canvas": "original", "fill": "50%", "upscale": True, "resize": "300"}).canvas
    placement = place((600, 400), (0, 0, 100, 100), canvas)
    assert placement.size == (300, 200)
    assert placement.target == (100, 50, 200, 150)


_framings = st.fixed_dictionaries(
    {"upscale": st.booleans(), "align": st.sampled_from(["center", "bottom"])},
    optional={
        "canvas": st.builds("{}x{}".format, st.integers(200, 900), st.integers(200, 900))
        | st.builds("{}:{}".format, st.integers(1, 9), st.integers(1, 9)),
        "fill": st.builds("{}%".format, st.integers(5, 100)),
        "margin": st.builds("{}{}".format, st.integers(0, 99), st.sampled_from(["px", "%"])),
        "resize": st.builds("{}x{}".format, st.integers(200, 900), st.integers(200, 900)),
        "crop": st.just(True),
    },
)


def _settings(framing: Any) -> CanvasSettings:
    try:
        return settle(framing).canvas
    except UsageError:
        assume(False)
        raise


@given(_subjects(), _framings)
def test_any_framing_keeps_the_subject_whole_and_in_shape(
    subject: tuple[tuple[int, int], Box], framing: Any
) -> None:
    size, box = subject
    canvas = _settings(framing)
    placement = place(size, box, canvas)
    assert placement.source == (box if canvas.frames_subject else (0, 0, *size))
    assert min(_gaps(placement)) >= 0
    width, height = _size(placement.source)
    shown = _size(placement.target)
    scale = max(shown) / max(width, height)
    assert abs(shown[0] - width * scale) <= 1
    assert abs(shown[1] - height * scale) <= 1
    left, top, right, bottom = _gaps(placement)
    assert abs(left - right) <= 1
    if canvas.align == "center":
        assert abs(top - bottom) <= 1
    if not canvas.upscale:
        assert shown[0] <= width
        assert shown[1] <= height
    if canvas.resize is not None:
        assert placement.size[0] <= canvas.resize[0]
        assert placement.size[1] <= canvas.resize[1]


@given(_subjects(), st.floats(0.3, 1), st.tuples(st.integers(200, 900), st.integers(200, 900)))
def test_fill_is_the_subjects_share_and_nothing_is_enlarged(
    subject: tuple[tuple[int, int], Box], fill: float, size: tuple[int, int]
) -> None:
    photo, box = subject
    large = place(photo, box, CanvasSettings(size=size, fill=fill, upscale=True))
    assert large.size == size
    assert large.note is None
    placement = place(photo, box, CanvasSettings(size=size, fill=fill))
    shown = _size(placement.target)
    if placement.note is None:
        assert placement == large
    else:
        # Smaller than asked, in the same shape, with the subject as it is.
        assert shown == _size(box)
        assert placement.size < size
        assert placement.note == (
            f"not enlarged without --upscale: {placement.size[0]} x {placement.size[1]}, "
            f"subject {shown[0]} x {shown[1]}"
        )
    width, height = placement.size
    # One pixel of rounding for the subject, one for the canvas.
    reached = max((shown[0]) / width, (shown[1]) / height)
    assert abs(reached - fill) <= 2 / min(width, height) + 1e-9


@given(_subjects(), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 50))
def test_an_aspect_is_the_smallest_that_holds_the_subject(
    subject: tuple[tuple[int, int], Box], aspect: tuple[int, int], margin: int
) -> None:
    photo, box = subject
    canvas = CanvasSettings(aspect=aspect, margin=Margins.even(Length(margin, "px")))
    placement = place(photo, box, canvas)
    (width, height), (across, down) = placement.size, aspect
    assert abs(width - height * across / down) <= 1 or abs(height - width * down / across) <= 1
    left, top, right, bottom = _gaps(placement)
    assert margin in {left, top}
    assert min(left, top, right, bottom) == margin


@pytest.mark.parametrize(
    ("framing", "below"),
    [
        (CanvasSettings(size=(400, 400), align="bottom"), 0),
        (
            CanvasSettings(size=(400, 400), margin=Margins.even(Length(30, "px")), align="bottom"),
            30,
        ),
        (CanvasSettings(size=(400, 400), fill=0.8, align="bottom"), 40),
        (CanvasSettings(aspect=(1, 2), margin=Margins.even(Length(10, "%")), align="bottom"), 40),
    ],
)
def test_at_the_bottom_the_subject_stands_on_its_margin(
    framing: CanvasSettings, below: int
) -> None:
    placement = place((800, 800), (100, 200, 500, 400), framing)
    assert placement.size[1] - placement.target[3] == below


@pytest.mark.parametrize("aspect", [(1000, 1), (1, 1000)])
def test_a_picture_has_a_pixel_in_either_direction(aspect: tuple[int, int]) -> None:
    placement = place((80, 60), (10, 10, 70, 50), CanvasSettings(aspect=aspect, resize=(100, 100)))
    assert sorted(placement.size) == [1, 100]


def test_a_photo_without_framing_is_only_scaled() -> None:
    placement = place((3000, 2000), None, CanvasSettings(resize=(1000, 1000)))
    assert placement == Placement((0, 0, 3000, 2000), (1000, 667), (0, 0, 1000, 667))
    small = place((300, 200), None, CanvasSettings(resize=(1000, 1000)))
    assert small.size == (300, 200)
    assert small.note == "not enlarged without --upscale: 300 x 200, subject 300 x 200"


def _box_of(alpha: NDArray[np.uint8]) -> Box | None:
    rows, columns = np.nonzero(alpha >= SUBJECT_ALPHA)
    if rows.size == 0:
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@given(_subjects(), st.integers(SUBJECT_ALPHA, 255))
def test_the_subjects_box_is_that_of_its_alpha(
    subject: tuple[tuple[int, int], Box], value: int
) -> None:
    size, box = subject
    alpha = Image.new("L", size, SUBJECT_ALPHA - 1)
    alpha.paste(value, box)
    assert find_subject(alpha) == box


@pytest.mark.parametrize("size", [(400, 300), (1500, 1101)])
def test_specks_are_ignored_and_pairs_are_not(size: tuple[int, int]) -> None:
    width, height = size
    alpha = np.zeros((height, width), np.uint8)
    alpha[100:200, 100:180] = 255
    alpha[5:9, 7:11] = 255
    alpha[-3:, -4:] = 200
    assert find_subject(Image.fromarray(alpha)) == (100, 100, 180, 200)
    alpha[120:180, 300:340] = 255  # the other shoe
    assert find_subject(Image.fromarray(alpha)) == (100, 100, 340, 200)


def test_a_speck_close_to_the_subject_is_one_too() -> None:
    alpha = np.zeros((1500, 2000), np.uint8)
    alpha[400:1000, 500:1300] = 255
    alpha[700:703, 1302:1305] = 255  # two pixels away
    assert find_subject(Image.fromarray(alpha)) == (500, 400, 1300, 1000)


def test_a_thin_part_belongs_to_the_subject_it_hangs_on() -> None:
    alpha = np.zeros((3000, 3000), np.uint8)
    alpha[1000:2000, 1000:2000] = 255
    alpha[1500, 300:1000] = 255  # a cord of one pixel, which a small picture hardly shows
    assert find_subject(Image.fromarray(alpha)) == (300, 1000, 2000, 2000)


def test_no_subject() -> None:
    assert find_subject(Image.new("L", (30, 20), SUBJECT_ALPHA - 1)) is None


@pytest.mark.parametrize("size", [(480, 360), (333, 517)])
def test_a_crop_holds_the_photos_own_pixels(size: tuple[int, int]) -> None:
    photo, alpha = product(size)
    box = _box_of(np.asarray(alpha))
    placement = place(size, box, CanvasSettings(margin=Margins.even(Length(11, "px"))))
    colours, matte = put_on_canvas(photo, alpha, placement)
    assert colours.size == matte.size == placement.size
    shown = np.asarray(matte)
    assert _box_of(shown) == placement.target
    inside = colours.crop(placement.target)
    assert inside.tobytes() == photo.crop(box).tobytes()
    assert shown.sum() == np.asarray(matte.crop(placement.target), np.int64).sum()


def test_far_haze_and_what_is_beside_the_box_are_cut_away() -> None:
    alpha = np.full((200, 200), SUBJECT_ALPHA - 1, np.uint8)
    alpha[50:100, 50:100] = 255
    alpha[52:98, 70:98] = SUBJECT_ALPHA - 1  # haze inside the box too
    placement = place(
        (200, 200), (50, 50, 100, 100), CanvasSettings(margin=Margins.even(Length(9, "px")))
    )
    _, matte = put_on_canvas(Image.new("RGB", (200, 200)), Image.fromarray(alpha), placement)
    subject = np.asarray(matte) >= SUBJECT_ALPHA
    far = np.ones_like(subject)
    for y, x in np.argwhere(subject):
        far[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = False
    assert far.any()
    assert not np.asarray(matte)[far].any()


def test_shrinking_bleeds_no_background_into_the_subject() -> None:
    width = 600
    photo = Image.new("RGB", (width, width), (0, 0, 255))
    photo.paste((255, 0, 0), (100, 100, 500, 500))
    alpha = Image.new("L", photo.size)
    alpha.paste(255, (100, 100, 500, 500))
    placement = place(photo.size, (100, 100, 500, 500), CanvasSettings(size=(150, 150), fill=0.9))
    colours, matte = put_on_canvas(photo, alpha, placement)
    shown = np.asarray(colours)[np.asarray(matte) >= SUBJECT_ALPHA]
    assert len(shown) == 135 * 135
    assert (shown == (255, 0, 0)).all()


@pytest.mark.parametrize("align", ["center", "bottom"])
def test_a_scaled_subject_fills_its_share_of_the_written_alpha(align: Align) -> None:
    photo, alpha = product((1200, 900))
    box = find_subject(alpha)
    placement = place(photo.size, box, CanvasSettings(size=(400, 400), fill=0.85, align=align))
    _, matte = put_on_canvas(photo, alpha, placement)
    shown = _box_of(np.asarray(matte))
    assert shown is not None
    assert max(_size(shown)) == pytest.approx(340, abs=3)
