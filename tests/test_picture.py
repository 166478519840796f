"""One picture's way: what comes out, and what an error says."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bgx.errors import BgxError, InferenceError, TooLargeError, UsageError
from bgx.model.registry import ModelEntry
from bgx.run.outcome import Done
from support.fakes import SIZE, ConstantNetwork, CrashingNetwork, FakeNetwork, save_photo
from support.pictures import encode
from support.running import cut as cut_with
from support.running import make_job, run_all

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from bgx.run.cutout import Cutout
    from bgx.run.picture import Network


def cut(photo: Image.Image | bytes, network: Network | None = None, **options: Any) -> Cutout:
    return cut_with(photo, network or FakeNetwork(), name="photo.jpg", **options)


@pytest.fixture
def photo() -> Image.Image:
    """White subject in the middle half, black around it."""
    image = Image.new("RGB", (96, 64), "black")
    image.paste("white", (24, 16, 72, 48))
    return image


def test_a_cut_out_has_alpha_and_the_photos_size(photo: Image.Image) -> None:
    cutout = cut(photo)

    assert (cutout.image.mode, cutout.image.size) == ("RGBA", photo.size)
    assert (cutout.matte.mode, cutout.matte.size) == ("L", photo.size)
    assert cutout.image.getpixel((48, 32)) == (255, 255, 255, 255)
    assert cutout.image.getpixel((2, 2)) == (0, 0, 0, 0)


def test_what_a_cut_out_came_to(photo: Image.Image) -> None:
    measured = cut(photo).measured

    assert (measured.width, measured.height) == photo.size
    assert measured.coverage == pytest.approx(0.25, abs=0.03)
    assert measured.bbox is not None
    assert measured.bbox == pytest.approx((24, 16, 72, 48), abs=3)
    assert set(measured.seconds) == {"read", "infer", "compose"}
    assert all(seconds >= 0 for seconds in measured.seconds.values())


def test_no_subject_is_no_box(photo: Image.Image) -> None:
    measured = cut(photo, ConstantNetwork(value=0.0)).measured

    assert (measured.coverage, measured.bbox) == (0.0, None)


def test_the_photo_handed_in_is_not_changed(photo: Image.Image) -> None:
    before = photo.tobytes()

    cut(photo)

    assert (photo.mode, photo.tobytes()) == ("RGB", before)


def test_the_mask_of_a_jpeg_is_the_cutouts_alpha(photo: Image.Image) -> None:
    large = encode(photo.resize((1920, 1280)), "JPEG", quality=95)
    mask = cut(large, mask_only=True).image
    alpha = cut(large).image.getchannel("A")
    assert mask.size == alpha.size
    assert np.abs(np.asarray(mask).astype(int) - np.asarray(alpha)).mean() <= 0.5


def test_the_mask_alone(photo: Image.Image) -> None:
    cutout = cut(photo, mask_only=True)

    assert cutout.image.mode == "L"
    assert cutout.image.getpixel((48, 32)) == 255


def test_a_background_is_exact_where_there_is_no_subject(photo: Image.Image) -> None:
    cutout = cut(photo, background=(12, 34, 56))

    assert cutout.image.mode == "RGB"
    assert cutout.image.getpixel((2, 2)) == (12, 34, 56)


def test_outside_of_the_region_all_is_background(photo: Image.Image) -> None:
    whole = cut(photo).image
    cutout = cut(photo, region="50%,0,100%,100%")

    assert cutout.image.crop((0, 0, 48, 64)).getchannel("A").getbbox() is None
    right = (48, 0, 96, 64)
    assert cutout.image.crop(right).tobytes() == whole.crop(right).tobytes()
    assert cutout.measured.bbox is not None
    assert cutout.measured.bbox[0] == 48
    assert cut(photo, roi="200px 0 300px 64px").measured.bbox is None


def test_a_subject_outside_of_the_region_counts_for_nothing(photo: Image.Image) -> None:
    two = Image.new("RGB", (192, 64), "black")
    two.paste(photo, (0, 0))
    two.paste("white", (150, 24, 168, 40))

    assert cut(two).measured.trust.subjects == 2
    alone = cut(two, region="60%,0,100%,100%").measured
    assert alone.bbox == pytest.approx((150, 24, 168, 40), abs=4)
    assert alone.trust.subjects == 1
    assert alone.trust.fill < 0.5


def test_a_translucent_background_is_behind_the_subject(photo: Image.Image) -> None:
    cutout = cut(photo, background="#0c223880")

    assert cutout.image.mode == "RGBA"
    assert cutout.image.getpixel((2, 2)) == (12, 34, 56, 128)
    assert cutout.image.getpixel((48, 32)) == (255, 255, 255, 255)
    assert cutout.matte.getpixel((2, 2)) == 0


def test_a_background_may_be_an_image_in_memory(photo: Image.Image) -> None:
    shelf = encode(Image.new("RGB", (10, 10), (12, 34, 56)), "PNG")

    assert cut(photo, background=shelf).image.getpixel((2, 2)) == (12, 34, 56)
    with pytest.raises(UsageError, match="--background: not a picture"):
        cut(photo, background=b"no image")


def test_a_solid_matte_is_half_transparent_only_at_its_edges(photo: Image.Image) -> None:
    glass = photo.copy()
    glass.paste((200, 200, 200), (36, 24, 60, 40))
    raw, solid = (cut(glass, matte=kind).matte for kind in ("raw", "solid"))

    assert 150 < raw.getpixel((48, 32)) < 250
    assert solid.getpixel((48, 32)) == 255

    def count_soft(matte: Image.Image) -> int:
        return sum(matte.histogram()[1:255])

    assert count_soft(solid) < count_soft(raw) / 2


def test_the_size_without_resizing_is_measured(photo: Image.Image) -> None:
    measured = cut(photo, resize="0.001MP").measured
    assert measured.width * measured.height <= 1000
    assert measured.full == photo.size
    cropped = cut(photo, crop=True, resize="20").measured
    assert cropped.full == pytest.approx((48, 32), abs=4)


def test_jpeg_goes_on_white(photo: Image.Image) -> None:
    assert cut(photo, format="jpg").image.getpixel((2, 2)) == (255, 255, 255)


def test_the_first_frame_is_noted() -> None:
    stream = io.BytesIO()
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black")]
    frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:])

    cutout = cut(stream.getvalue())

    assert cutout.measured.notes == ("first frame of several",)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".avif"])
def test_saving_keeps_alpha(tmp_path: Path, photo: Image.Image, suffix: str) -> None:
    target = tmp_path / f"new/cut{suffix}"

    cut(photo).save(target)

    with Image.open(target) as saved:
        assert (saved.mode, saved.size) == ("RGBA", photo.size)


def test_saving_as_jpeg_goes_on_white_and_leaves_the_cut_out(
    tmp_path: Path, photo: Image.Image
) -> None:
    cutout = cut(photo)

    cutout.save(tmp_path / "cut.jpg")

    with Image.open(tmp_path / "cut.jpg") as saved:
        assert saved.mode == "RGB"
        assert saved.getpixel((2, 2)) == (255, 255, 255)
    assert cutout.image.mode == "RGBA"


def test_saving_needs_a_suffix_that_names_a_format(tmp_path: Path, photo: Image.Image) -> None:
    with pytest.raises(UsageError, match=r"cut\.gif: unknown suffix"):
        cut(photo).save(tmp_path / "cut.gif")


def test_profile_and_resolution_are_in_the_file(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = tmp_path / "in.jpg"
    Image.new("RGB", (40, 40), "white").save(source, icc_profile=profile, dpi=(300, 300))
    [outcome] = run_all([make_job(source, tmp_path / "out.png")], FakeNetwork())

    assert isinstance(outcome, Done)
    with Image.open(tmp_path / "out.png") as saved:
        assert saved.info["icc_profile"] == profile
        assert saved.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_seconds_of_a_written_picture_name_every_step(tmp_path: Path) -> None:
    job = make_job(save_photo(tmp_path / "in.png"), tmp_path / "out.png")

    [outcome] = run_all([job], FakeNetwork())

    assert isinstance(outcome, Done)
    assert set(outcome.measured.seconds) == {"read", "infer", "compose", "write"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [(InferenceError("crashed"), InferenceError), (MemoryError(), TooLargeError)],
)
def test_an_error_names_the_picture(
    photo: Image.Image, error: Exception, expected: type[BgxError]
) -> None:
    with pytest.raises(expected, match=r"^photo\.jpg: "):
        cut(photo, CrashingNetwork(error=error))


@pytest.mark.parametrize("stretch", [True, False])
def test_a_matte_is_stretched_where_the_registry_says_so(photo: Image.Image, stretch: bool) -> None:
    entry = ModelEntry(
        "half", (SIZE, SIZE), mean=(0, 0, 0), std=(2, 2, 2), scale=255.0, stretch=stretch
    )

    matte = cut(photo, FakeNetwork(entry=entry)).matte

    assert matte.getpixel((48, 32)) == (255 if stretch else 127)
