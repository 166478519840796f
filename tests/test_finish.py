"""Finished pictures: framed, on a background, in their colour space, within their bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFilter

from bgx.errors import NoSubjectError, TooLargeError, UnwritableError, UsageError
from bgx.image.backdrop import hide_subject
from bgx.image.icc import convert_colour, srgb_profile
from bgx.image.matte import SUBJECT_ALPHA
from bgx.options import settle
from bgx.presets import preset_options
from bgx.run.cutout import encode_cutout
from bgx.run.outcome import Failed
from support.fakes import ConstantNetwork, FakeNetwork, save_photo
from support.pictures import difference, encode, product, quarters, wide_profile
from support.running import by_job, cut, cut_as, make_job, run_all

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.run.cutout import Cutout


def _cut(source: bytes | Path, preset: str | None = None, **options: Any) -> Cutout:
    """Cut along the photo's own alpha: the network finds a subject everywhere."""
    output = settle(options, preset=preset_options(preset), open_format=True)
    return cut_as(source, ConstantNetwork(), output)


def _photo(size: tuple[int, int] = (480, 360), **options: Any) -> bytes:
    """The drawn ball, cut out already."""
    image, alpha = product(size)
    image.putalpha(alpha)
    return encode(image, "PNG", **options)


def _box(alpha: Image.Image) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(np.asarray(alpha) >= SUBJECT_ALPHA)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _far(alpha: Image.Image, distance: int) -> NDArray[np.bool_]:
    """Pixels further than so many from the subject."""
    subject = alpha.point([255 * (value >= SUBJECT_ALPHA) for value in range(256)])
    return np.asarray(subject.filter(ImageFilter.MaxFilter(2 * distance + 1))) == 0


def _open(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        return opened


def test_a_crop_is_the_box_of_the_written_alpha() -> None:
    whole = _cut(_photo()).image
    box = _box(whole.getchannel("A"))
    cutout = _cut(_photo(), crop=True)
    cropped = cutout.image
    assert cropped.size == (box[2] - box[0], box[3] - box[1])
    assert difference(cropped, whole.crop(box)) == 0
    assert cutout.measured.bbox == (0, 0, *cropped.size)
    assert (cutout.measured.width, cutout.measured.height) == cropped.size


def test_a_margin_is_to_the_pixel_in_the_written_alpha() -> None:
    cutout = _cut(_photo(), margin="17px")
    width, height = cutout.image.size
    assert _box(cutout.image.getchannel("A")) == (17, 17, width - 17, height - 17)
    assert cutout.measured.bbox == (17, 17, width - 17, height - 17)
    assert cutout.measured.coverage == pytest.approx(np.asarray(cutout.matte).mean() / 255)


@pytest.mark.parametrize("size", [(3600, 2800), (1111, 777)])
def test_amazons_picture(size: tuple[int, int]) -> None:
    cutout = _cut(_photo(size), "amazon")
    picture = _open(cutout.encode("jpg"))
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    assert picture.info["icc_profile"] == srgb_profile()
    # The same with its alpha, to know where the subject is.
    alpha = _cut(_photo(size), canvas="2000x2000", fill="85%").image.getchannel("A")
    assert picture.size == alpha.size == cutout.matte.size
    box = _box(alpha)
    side = max(box[2] - box[0], box[3] - box[1])
    assert side / picture.width == pytest.approx(0.85, abs=0.01)
    assert (np.asarray(picture)[_far(alpha, 3)] == 255).all()
    if size[0] >= 3000:
        assert picture.size == (2000, 2000)
        assert cutout.measured.notes == ()
    else:
        subject = _box(_cut(_photo(size)).image.getchannel("A"))
        assert side == max(subject[2] - subject[0], subject[3] - subject[1])
        assert cutout.measured.notes[0].startswith("not enlarged without --upscale: ")


def test_what_is_too_small_is_enlarged_when_asked() -> None:
    cutout = _cut(_photo((200, 150)), canvas="500x400", fill="80%", upscale=True)
    assert cutout.image.size == (500, 400)
    box = _box(cutout.image.getchannel("A"))
    assert box[3] - box[1] == pytest.approx(320, abs=4)


def test_without_a_subject_a_canvas_is_refused(tmp_path: Path) -> None:
    dark = save_photo(tmp_path / "dark.png", subject=0)
    light = save_photo(tmp_path / "light.png")
    jobs = [make_job(path, tmp_path / f"out/{path.name}") for path in (dark, light)]
    outcomes = by_job(jobs, run_all(jobs, FakeNetwork(), canvas="square"))
    failed = outcomes[jobs[0]]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, NoSubjectError)
    assert str(failed.error) == f"{dark}: no subject found, so there is nothing to frame"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["light.png"]
    # Without a canvas it is an empty cut-out, as ever.
    assert _cut(encode(Image.new("RGBA", (9, 9)), "PNG"), resize="5").image.size == (5, 5)


def test_a_canvas_that_no_memory_holds_is_refused() -> None:
    with pytest.raises(TooLargeError, match=r"a canvas of \d+ x \d+ has more than 200,000,000"):
        _cut(_photo((1000, 750)), canvas="1000:1")
    with pytest.raises(TooLargeError, match=r"30000 x 30000"):
        _cut(_photo(), canvas="30000x30000")


@pytest.mark.parametrize("margin", ["240px", "0 0 0 480px", "360px 0 0 0", "10000px"])
def test_margins_that_take_up_the_whole_photo_are_refused(margin: str) -> None:
    """The subject would be beyond the picture, which would be empty."""
    with pytest.raises(TooLargeError, match=r"leaves no space in the photo's 480 x 360; use less"):
        _cut(_photo(), canvas="original", margin=margin)


@pytest.mark.parametrize("background", ["#204060", "blur", "blur:2", "original-greyed", "file"])
@pytest.mark.parametrize("shadow", ["none", "soft", "contact:90%"])
@pytest.mark.parametrize("framing", [{}, {"canvas": "4:5", "margin": "12%"}, {"resize": "300"}])
def test_any_background_is_behind_the_subject(
    tmp_path: Path, background: str, shadow: str, framing: dict[str, Any]
) -> None:
    if background == "file":
        background = str(tmp_path / "shelf.png")
        quarters(size=(90, 200)).save(background)
    cutout = _cut(_photo(), background=background, shadow=shadow, **framing)
    plain = _cut(_photo(), **framing)
    picture = cutout.image
    assert picture.mode == "RGB"
    assert picture.size == plain.image.size
    alpha = plain.image.getchannel("A")
    assert difference(cutout.matte, alpha) == 0
    inside = np.asarray(alpha) == 255
    assert difference(np.asarray(picture)[inside], np.asarray(plain.image)[inside][:, :3]) == 0
    if background.startswith("#") and shadow == "none":
        assert (np.asarray(picture)[np.asarray(alpha) == 0] == (0x20, 0x40, 0x60)).all()


@pytest.mark.parametrize("background", ["blur:2", "original-greyed", "file"])
def test_what_an_alpha_hides_is_behind_nothing(tmp_path: Path, background: str) -> None:
    hidden = quarters(size=(200, 150), mode="RGB")
    hidden.paste((255, 0, 255), (100, 0, 200, 150))
    alpha = Image.new("L", hidden.size, 255)
    alpha.paste(0, (100, 0, 200, 150))
    hidden.putalpha(alpha)
    if background == "file":
        background = str(tmp_path / "half.png")
        hidden.save(background)
        photo = _photo((200, 150))
    else:
        photo = encode(hidden, "PNG")
    far = np.asarray(_cut(photo, background=background).image)[5:20, 150:195]
    assert (far >= 250).all()


def test_a_shadow_is_the_same_on_white_and_in_the_alpha() -> None:
    framing = {"margin": "20%", "shadow": "contact"}
    clear = _cut(_photo(), **framing).image
    flat = _cut(_photo(), background="white", **framing).image
    laid = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    assert difference(laid.convert("RGB"), flat) <= 1
    assert difference(flat, _cut(_photo(), background="white", margin="20%").image) > 40


def test_a_background_that_is_no_picture(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf.jpg"
    shelf.write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"--background .*shelf\.jpg: not a picture"):
        _cut(_photo(), background=str(shelf))


def test_the_matte_alone_is_framed_too() -> None:
    framing = {"canvas": "300x200", "fill": "70%"}
    matte = _cut(_photo(), mask_only=True, **framing).image
    assert matte.mode == "L"
    assert difference(matte, _cut(_photo(), **framing).image.getchannel("A")) == 0


def test_a_wide_photo_in_srgb_is_what_littlecms_makes_of_it() -> None:
    photo = _photo(icc_profile=wide_profile())
    cutout = _cut(photo, colour="srgb")
    assert cutout.icc == srgb_profile()
    image, alpha = product()
    wide = ImageCms.ImageCmsProfile(io.BytesIO(wide_profile()))
    expected = ImageCms.profileToProfile(image, wide, ImageCms.createProfile("sRGB"))
    opaque = np.asarray(alpha) == 255
    shown = np.asarray(cutout.image)[..., :3]
    assert difference(shown[opaque], np.asarray(expected)[opaque]) == 0
    assert difference(shown[opaque], np.asarray(image)[opaque]) > 5
    kept = _cut(photo)
    assert kept.icc == wide_profile()
    assert difference(np.asarray(kept.image)[opaque][:, :3], np.asarray(image)[opaque]) == 0


@pytest.mark.parametrize("colour", ["keep", "srgb"])
@pytest.mark.parametrize("icc", [None, wide_profile()])
def test_a_background_looks_the_same_behind_any_photo(
    tmp_path: Path, colour: str, icc: bytes | None
) -> None:
    photo = _photo(icc_profile=icc) if icc else _photo()
    shelf = tmp_path / "shelf.png"
    quarters(colours=[(200, 40, 40)] * 4).save(shelf)
    seen = icc if colour == "keep" else None
    for background in ("#c82828", str(shelf)):
        cutout = _cut(photo, background=background, colour=colour)
        assert difference(cutout.image.getpixel((0, 0)), convert_colour((200, 40, 40), seen)) <= 1


def test_the_quality_is_lowered_as_far_as_the_bytes_need() -> None:
    free = _cut(_photo(), background="white").encode("jpg")
    limit = len(free) * 2 // 3
    cutout = _cut(_photo(), format="jpg", max_bytes=str(limit))
    pieces, [note] = encode_cutout(cutout, name="out.jpg")
    assert 0.9 * limit < sum(map(len, pieces)) <= limit
    quality = int(note.split()[1])
    assert note == f"quality {quality} to stay within {limit:,} bytes"
    assert len(_cut(_photo(), background="white").encode("jpg", quality=quality)) <= limit
    assert len(_cut(_photo(), background="white").encode("jpg", quality=quality + 1)) > limit


@pytest.mark.parametrize(
    ("file_format", "remedy"),
    [("png", "--format jpg"), ("tiff", "--format jpg"), ("webp", "--quality 90")],
)
def test_nothing_lossless_is_made_smaller_by_stealth(file_format: Any, remedy: str) -> None:
    message = f"more than --max-bytes 900; .* {remedy}$"
    with pytest.raises(UnwritableError, match=message):
        _cut(_photo(), max_bytes="900").encode(file_format)
    assert len(_cut(_photo(), max_bytes="9MB").encode(file_format)) > 900


def test_bytes_that_no_quality_reaches() -> None:
    with pytest.raises(UnwritableError, match=r"does not fit into 700 bytes .* --resize"):
        _cut(_photo(), max_bytes="700").encode("jpg")
    with pytest.raises(UnwritableError, match="into 700 bytes at quality 15;"):
        _cut(_photo(), max_bytes="700").encode("jpg", quality=15)
    small = _cut(_photo(), max_bytes="4kB", quality=95).encode("webp")
    assert len(small) <= 4000


def test_a_saved_cutout_is_what_its_preset_says(tmp_path: Path) -> None:
    target = tmp_path / "out.jpg"
    _cut(_photo((900, 700)), "amazon", max_bytes="60kB").save(target)
    assert target.stat().st_size <= 60_000
    with Image.open(target) as opened:
        assert opened.info["icc_profile"] == srgb_profile()
        assert opened.getpixel((2, 2)) == (255, 255, 255)


@dataclass
class SquareNetwork(FakeNetwork):
    """Finds a square in the middle, two fifths as wide as the picture."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        mattes = np.zeros_like(super().run(batch))
        side = mattes.shape[1]
        mattes[:, side * 3 // 10 : side * 7 // 10, side * 3 // 10 : side * 7 // 10] = 1
        return mattes


def test_the_photo_behind_is_in_its_place() -> None:
    photo = encode(quarters(size=(320, 320)), "PNG")
    cutout = cut(photo, SquareNetwork(), background="original-greyed", margin="20px")
    pixels = np.asarray(cutout.image).astype(int)
    # The cross of the quarters goes through subject and background alike.
    behind, subject = pixels[4, 4:-4], pixels[len(pixels) // 3, 70:-70]
    assert (behind == behind[:, :1]).all()
    [seam] = np.flatnonzero(np.diff(behind[:, 0])) + 4
    assert abs(np.diff(behind[:, 0])).max() > 10
    [cross] = np.flatnonzero(np.abs(np.diff(subject, axis=0)).max(axis=1)) + 70
    assert seam == cross


def red_square_on(ground: Image.Image) -> bytes:
    """The square that SquareNetwork finds, in light red."""
    width, height = ground.size
    box = [round(side * share) for share in (0.3, 0.7) for side in (width, height)]
    ground.paste((255, 120, 120), tuple(box))
    return encode(ground, "PNG")


@pytest.mark.parametrize("framing", [{}, {"margin": "200px"}, {"canvas": "3:1"}])
def test_a_blurred_photo_shows_nothing_of_its_subject(framing: dict[str, Any]) -> None:
    blue = (10, 30, 90)
    cutout = cut(
        red_square_on(Image.new("RGB", (600, 450), blue)),
        SquareNetwork(),
        background="blur",
        keep_colours=True,
        **framing,
    )

    around = np.asarray(cutout.matte) == 0
    assert around.mean() > 0.5
    assert difference(np.asarray(cutout.image)[around], blue) <= 2


@pytest.mark.parametrize("framing", [{"margin": "200px"}, {"canvas": "3:1"}])
def test_a_grey_photo_is_mirrored_without_its_subject(framing: dict[str, Any]) -> None:
    ground = quarters(colours=[(40, 60, 200)] * 4, size=(600, 450))
    cutout = cut(red_square_on(ground), SquareNetwork(), background="original-greyed", **framing)

    around = np.asarray(cutout.image)[np.asarray(cutout.matte) == 0]
    [grey] = {int(value) for value in np.asarray(cutout.image)[0, 0]}
    assert difference(around, grey) <= 3


def test_the_subject_s_place_is_filled_from_what_surrounds_it() -> None:
    slope = np.linspace(40, 200, 300).round().astype(np.uint8)
    photo = Image.fromarray(np.repeat(np.tile(slope, (200, 1))[..., None], 3, axis=2))
    alpha = Image.new("L", photo.size)
    alpha.paste(255, (120, 60, 180, 140))
    with_subject = photo.copy()
    with_subject.paste((255, 0, 0), mask=alpha)

    plate = hide_subject(with_subject, alpha)

    assert difference(plate, photo) <= 25
    assert difference(plate.crop((0, 0, 100, 200)), photo.crop((0, 0, 100, 200))) == 0


@pytest.mark.parametrize("value", [0, 255])
def test_without_a_subject_or_without_a_background_there_is_nothing_to_fill(value: int) -> None:
    photo = quarters()
    assert difference(hide_subject(photo, Image.new("L", photo.size, value)), photo) == 0


def test_the_photos_metadata_is_written_only_when_asked() -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Artist] = "somebody"
    photo = _photo(exif=tags.tobytes())
    assert b"somebody" not in _cut(photo).encode("jpg")
    assert b"somebody" in _cut(photo, keep_metadata=True).encode("jpg")
    assert b"somebody" in _cut(photo, keep_metadata=True, crop=True).encode("png")
