"""What stands behind the subject, and the shadow it casts on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgx.image.backdrop import blur_image, cover_canvas, grey_image, spread_photo
from bgx.image.canvas import place
from bgx.image.shadow import cast_shadow
from bgx.options import CanvasSettings
from bgx.settings import Length, Margins, Shadow, ShadowKind
from support.pictures import difference, product, quarter_colours, quarters


def test_a_background_picture_covers_the_canvas_and_keeps_its_shape() -> None:
    background = quarters(size=(400, 200))
    covered = cover_canvas(background, (100, 100))
    assert covered.size == (100, 100)
    # Its left and right are cut off alike: the cross stays in the middle.
    assert quarter_colours(covered) == quarter_colours(background)
    assert difference(covered.getpixel((47, 10)), covered.getpixel((2, 10))) <= 1


@given(
    st.integers(40, 200),
    st.integers(40, 200),
    st.integers(0, 300),
    st.sampled_from([None, (90, 120), (121, 77)]),
)
def test_the_photo_stands_where_the_subject_was_cut_from_it(
    width: int, height: int, margin: int, resize: tuple[int, int] | None
) -> None:
    # A slope of colour shows each pixel's place.
    across = np.linspace(20, 220, width)[None, :]
    down = np.linspace(20, 220, height)[:, None]
    planes = np.broadcast_arrays(across, down, 128.0)
    photo = Image.fromarray(np.stack(planes, axis=-1).round().astype(np.uint8))
    box = (width // 4, height // 3, width // 2, height // 2)
    room = Length(margin, "px") if resize is None else Length(margin % 30, "px")
    placement = place(photo.size, box, CanvasSettings(margin=Margins.even(room), resize=resize))
    backdrop = spread_photo(photo, placement)
    assert backdrop.size == placement.size
    shown = np.asarray(backdrop.crop(placement.target), np.float64)
    cut = photo.crop(box).resize((shown.shape[1], shown.shape[0]), Image.Resampling.BILINEAR)
    steps = 200 / (min(width, height) - 1) * max(1, box[2] / max(1, shown.shape[1]))
    assert np.abs(shown - np.asarray(cut)).max() <= 3 + 2 * steps


def test_beyond_its_edges_the_photo_is_mirrored() -> None:
    photo = quarters(size=(60, 60))
    placement = place(
        photo.size, (0, 0, 60, 60), CanvasSettings(margin=Margins.even(Length(60, "px")))
    )
    backdrop = np.asarray(spread_photo(photo, placement))
    assert backdrop.shape == (180, 180, 3)
    assert (backdrop[60:120, 60:120] == np.asarray(photo)).all()
    assert (backdrop[:60] == backdrop[60:120][::-1]).all()
    assert (backdrop[:, 120:] == backdrop[:, 60:120][:, ::-1]).all()


@pytest.mark.parametrize("radius", [0.5, 3.0, 7.3, 60.0])
def test_blur_leaves_plain_colours_and_the_amount_of_light(radius: float) -> None:
    plain = blur_image(Image.new("RGB", (90, 70), (200, 100, 3)), radius)
    assert plain.size == (90, 70)
    assert difference(plain, (200, 100, 3)) <= 1
    # Half black, half white is half the light, which sRGB writes as 188, not as 128.
    stripes = Image.new("RGB", (800, 32))
    for left in range(0, 800, 4):
        stripes.paste((255, 255, 255), (left, 0, left + 2, 32))
    if radius >= 3:
        middle = np.asarray(blur_image(stripes, radius))[:, 300:500]
        assert difference(middle, 188) <= 3


def test_blur_is_as_wide_as_asked() -> None:
    for radius in (2.0, 3.9, 4.1, 20.0):
        edge = Image.new("RGB", (400, 8))
        edge.paste((255, 255, 255), (200, 0, 400, 8))
        row = np.asarray(blur_image(edge, radius))[4, :, 0] / 255
        light = np.where(row <= 0.04045, row / 12.92, ((row + 0.055) / 1.055) ** 2.4)
        # A blurred step holds 15.9 % of the light one standard deviation into the dark.
        reached = float(np.interp(0.1587, light, np.arange(400) + 0.5))
        assert reached == pytest.approx(200 - radius, abs=0.4 + 0.06 * radius)


def test_grey_has_the_lightness_of_the_colour() -> None:
    photo = quarters(colours=[(255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90)])
    grey = [colour[0] for colour in quarter_colours(grey_image(photo))]
    assert grey == [127, 220, 76, 90]  # sRGB's curve at 0.2126, 0.7152, 0.0722
    assert all(len(set(colour)) == 1 for colour in quarter_colours(grey_image(photo)))


@pytest.mark.parametrize("kind", ["soft", "contact"])
def test_a_shadow_lies_at_the_subjects_foot(kind: ShadowKind) -> None:
    _, alpha = product((480, 480))
    box = alpha.point([255 * (v >= 10) for v in range(256)]).getbbox()
    assert box is not None
    shadow = np.asarray(cast_shadow(alpha, box, Shadow(kind, 0.5)))
    assert shadow.shape == (480, 480)
    assert 0 < shadow.max() <= 128
    beside = np.where(np.asarray(alpha) == 0, shadow, 0).astype(np.int64)
    middle = (box[1] + box[3]) // 2
    assert beside[middle:].sum() > 3 * beside[:middle].sum()
    assert shadow[0].max() == 0
    strong = np.asarray(cast_shadow(alpha, box, Shadow(kind, 1.0)))
    assert difference(strong, 2 * shadow.astype(np.int64)) <= 1


def test_no_strength_is_no_shadow() -> None:
    _, alpha = product((100, 100))
    assert not np.asarray(cast_shadow(alpha, (20, 20, 80, 80), Shadow("soft", 0.0))).any()


def test_a_subject_of_one_pixel_casts_one_too() -> None:
    alpha = Image.new("L", (9, 9))
    alpha.putpixel((4, 4), 255)
    for kind in ("soft", "contact"):
        assert cast_shadow(alpha, (4, 4, 5, 5), Shadow(kind, 1.0)).size == (9, 9)
