"""One picture's way: what comes out, and what an error says."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from bgx.errors import (
    BgxError,
    EmptyRegionError,
    InferenceError,
    RegionError,
    TooLargeError,
    UsageError,
)
from bgx.model.registry import ModelEntry
from bgx.run.outcome import Done
from support.fakes import SIZE, ConstantNetwork, CrashingNetwork, FakeNetwork, save_photo
from support.pictures import encode, exif, store
from support.running import cut as cut_with
from support.running import make_job, run_all

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

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


# A region -----------------------------------------------------------------------------------------


def draw_three() -> Image.Image:
    """Subjects of three sizes, one with a soft edge, on a ground with some grain."""
    grain = np.random.default_rng(5).integers(0, 8, (90, 150, 3), np.uint8)
    image = Image.fromarray(grain)
    draw = ImageDraw.Draw(image)
    draw.ellipse((5, 8, 60, 80), fill=(250, 230, 240))
    draw.rectangle((80, 40, 100, 60), fill=(220, 250, 250))
    soft = Image.new("L", image.size)
    ImageDraw.Draw(soft).ellipse((115, 10, 140, 35), fill=255)
    image.paste((250, 240, 200), mask=soft.filter(ImageFilter.GaussianBlur(2)))
    return image


THREE = draw_three()


@settings(max_examples=40)
@given(
    st.tuples(st.integers(0, 140), st.integers(0, 80), st.integers(1, 150), st.integers(1, 90)),
    st.booleans(),
    st.sampled_from(["raw", "clean", "solid"]),
    st.sampled_from(["all", "largest", "centre"]),
    st.sampled_from([{}, {"shift": 1.5}, {"shift": -2, "soften": 1}, {"threshold": 0.4}]),
    st.booleans(),
)
def test_a_region_is_cut_out_as_if_it_were_the_photo(
    box: tuple[int, int, int, int],
    refine: bool,
    matte: str,
    keep: str,
    edge: dict[str, float],
    own_alpha: bool,
) -> None:
    photo = THREE.copy()
    if own_alpha:
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    left, top, width, height = box
    box = left, top, min(left + width, 150), min(top + height, 90)
    options = {"refine": refine, "matte": matte, "keep": keep, **edge}

    of_region = cut(photo, region=box, **options)

    alone = cut(photo.crop(box), **options)
    expected = Image.new("RGBA", photo.size)
    expected.paste(alone.image, box)
    assert of_region.image.tobytes() == expected.tobytes()
    assert of_region.measured.trust == alone.measured.trust
    assert of_region.measured.bbox == (
        alone.measured.bbox and tuple(np.add(alone.measured.bbox, 2 * box[:2]).tolist())
    )
    mask = cut(photo, region=box, mask_only=True, **options).image
    assert mask.tobytes() == of_region.image.getchannel("A").tobytes()


@pytest.mark.parametrize("region", ["0,0,100%,100%", (0, 0, 150, 90), "0%,0%,150px,90px"])
def test_the_whole_photo_is_a_region_too(region: Any) -> None:
    assert cut(THREE, region=region).image.tobytes() == cut(THREE).image.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_given_in_the_upright_photo(orientation: int) -> None:
    lying = encode(store(THREE, orientation), "PNG", exif=exif(orientation=orientation))
    cutout = cut(lying, region="50%,40%,74%,80px")

    assert cutout.image.tobytes() == cut(THREE, region=(75, 36, 111, 80)).image.tobytes()
    assert cutout.measured.bbox == pytest.approx((80, 40, 101, 61), abs=6)


def test_a_region_of_a_jpeg_s_mask_is_looked_at_in_full() -> None:
    large = encode(THREE.resize((3000, 1800)), "JPEG", quality=95)
    options: Any = {"region": "50%,40%,80%,80%", "mask_only": True}
    mask = cut(large, **options).image
    with Image.open(io.BytesIO(large)) as photo:
        cropped = photo.crop((1500, 720, 2400, 1440))
    assert (
        mask.crop((1500, 720, 2400, 1440)).tobytes() == cut(cropped, mask_only=True).image.tobytes()
    )


def test_a_region_is_framed_and_put_on_backgrounds_as_any_subject() -> None:
    region = "50%,40%,74%,80px"
    assert cut(THREE, region=region, crop=True).image.size == pytest.approx((22, 22), abs=4)
    white = cut(THREE, region=region, background="white").image
    assert white.getpixel((30, 40)) == (255, 255, 255)
    assert white.getpixel((90, 50)) == pytest.approx((220, 250, 250), abs=3)
    # The photo behind it is the whole one, and keeps its colours.
    grey = cut(THREE, region=region, background="original-greyed", refine=True).image
    assert grey.getpixel((30, 40)) == pytest.approx((234, 234, 234), abs=3)
    assert grey.getpixel((90, 50)) == pytest.approx((220, 250, 250), abs=3)


@pytest.mark.parametrize(
    ("region", "error", "words"),
    [
        ("0,0,151,90", RegionError, "--region 0px,0px,151px,90px reaches beyond"),
        ("0,0,1234567,90", RegionError, "--region 0px,0px,1234567px,90px reaches beyond"),
        ("10%,0,50%,91px", RegionError, "150 x 90"),
        ("200,0,300,50", RegionError, "use percent"),
        ("50%,0,60px,50%", EmptyRegionError, "--region 50%,0px,60px,50% holds no pixel"),
        ("10%,10%,10.1%,90%", EmptyRegionError, "150 x 90"),
    ],
)
def test_a_region_must_lie_in_the_photo(region: str, error: type[BgxError], words: str) -> None:
    with pytest.raises(error, match=r"^photo\.jpg: ") as raised:
        cut(THREE, region=region)
    assert words in str(raised.value)


# A second look -----------------------------------------------------------------------------------


def draw_subjects(*boxes: tuple[int, int, int, int]) -> Image.Image:
    """White ellipses on black, 400 x 300: larger than the network's input."""
    image = Image.new("RGB", (400, 300))
    for box in boxes:
        ImageDraw.Draw(image).ellipse(box, fill="white")
    return image


@pytest.mark.parametrize(
    ("subjects", "options", "runs"),
    [
        ([(300, 200, 340, 240)], {}, 2),
        ([(300, 200, 340, 240)], {"matte": "solid", "keep": "largest", "mask_only": True}, 2),
        ([(40, 30, 90, 80), (120, 90, 170, 150)], {}, 2),
        ([(30, 20, 360, 270)], {}, 1),
        # Together, several small subjects may fill the photo.
        ([(10, 10, 50, 50), (340, 240, 380, 280)], {}, 1),
        ([], {}, 1),
        # The network's own matte, as rembg has it.
        ([(300, 200, 340, 240)], {"refine": False}, 1),
        # Which one is in the centre is a matter of the whole photo.
        ([(300, 200, 340, 240)], {"keep": "centre"}, 1),
        ([(300, 200, 340, 240)], {"region": (290, 190, 350, 250)}, 1),
        ([(300, 200, 340, 240)], {"region": "50%,50%,100%,100%"}, 2),
    ],
)
def test_only_small_subjects_are_looked_at_again(
    subjects: list[tuple[int, int, int, int]], options: dict[str, Any], runs: int
) -> None:
    network = FakeNetwork()
    cut(draw_subjects(*subjects), network, **{"refine": True, **options})
    assert network.batches == [1] * runs


def test_what_the_network_has_seen_in_full_is_not_looked_at_again() -> None:
    network = FakeNetwork()
    small = draw_subjects((300, 200, 340, 240)).resize((32, 24))
    cut(small, network, refine=True)
    assert network.batches == [1]


def test_a_small_subject_has_a_sharper_edge_at_the_second_look() -> None:
    box = (300, 200, 341, 241)
    photo = draw_subjects((300, 200, 340, 240))
    cutout = cut(photo, refine=True)

    truth = np.asarray(photo.convert("L"), np.float32)
    alpha = np.asarray(cutout.image.getchannel("A"), np.float32)
    assert np.abs(alpha - truth).sum() < 0.05 * truth.sum()
    assert cutout.measured.bbox == pytest.approx(box, abs=2)
    assert cutout.image.size == photo.size
    # As a part of the whole photo, not of what was looked at.
    assert cutout.measured.trust.fill == pytest.approx(41 / 300, abs=0.04)
    assert cutout.measured.trust.touches_border == ()
    assert cutout.image.tobytes() == cut(photo, refine=True).image.tobytes()


def test_a_small_subject_at_the_border_touches_it() -> None:
    cutout = cut(draw_subjects((350, 120, 420, 180)), refine=True)
    assert cutout.measured.trust.touches_border == ("right",)


class NarrowNetwork(FakeNetwork):
    """At every look after the first it sees only the left half."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        matte = super().run(batch)
        if len(self.batches) > 1:
            matte[..., SIZE // 2 :] = 0
        return matte


def test_what_only_the_first_look_saw_is_not_lost() -> None:
    photo = draw_subjects((40, 30, 90, 80), (120, 90, 170, 150))
    network = NarrowNetwork()

    cutout = cut(photo, network, refine=True)

    assert network.batches == [1, 1]
    assert cutout.measured.trust.subjects == 2
    assert cutout.measured.bbox == pytest.approx((40, 30, 171, 151), abs=8)


# One of several subjects, and its edge ------------------------------------------------------------


def test_one_of_several_subjects_is_kept() -> None:
    every, largest, central = (cut(THREE, keep=keep) for keep in ("all", "largest", "centre"))

    assert [one.measured.trust.subjects for one in (every, largest, central)] == [3, 1, 1]
    assert every.measured.bbox == pytest.approx((5, 8, 141, 81), abs=6)
    assert largest.measured.bbox == pytest.approx((5, 8, 61, 81), abs=10)
    # Its soft edge reaches half way to its neighbours.
    assert central.measured.bbox == pytest.approx((80, 40, 101, 61), abs=13)
    assert central.measured.trust.fill < 0.4
    box = (80, 40, 101, 61)
    assert central.image.crop(box).tobytes() == every.image.crop(box).tobytes()


def test_the_centre_is_the_region_s() -> None:
    cutout = cut(THREE, region=(70, 0, 150, 65), keep="centre")
    assert cutout.measured.bbox == pytest.approx((115, 8, 141, 37), abs=8)


def test_edges_are_moved_by_pixels_of_the_photo(photo: Image.Image) -> None:
    large = photo.resize((1920, 1280))
    plain = cut(large, refine=True, threshold=0.5).measured.bbox
    assert plain
    for shift in (-20, 5, 40):
        moved = cut(large, refine=True, threshold=0.5, shift=shift).measured.bbox
        assert moved == pytest.approx(np.add(plain, (-shift, -shift, shift, shift)), abs=1)


def test_a_threshold_is_in_every_file(photo: Image.Image) -> None:
    large = photo.resize((1920, 1280), Image.Resampling.BICUBIC)
    for options in ({}, {"mask_only": True}, {"refine": True}, {"matte": "solid"}):
        levels = cut(large, threshold="0.5", **options).matte.histogram()
        assert sum(levels[1:255]) == 0
        assert levels[0]
        assert levels[255]


def test_what_the_photo_hides_stays_hidden(photo: Image.Image) -> None:
    own = Image.new("L", photo.size)
    own.paste(255, (30, 20, 66, 44))
    own.paste(120, (30, 20, 36, 44))
    photo.putalpha(own)

    for options in ({"shift": 3}, {"soften": 4}, {"threshold": 0.3, "shift": 2}):
        alpha = np.asarray(cut(photo, **options).matte)
        assert not alpha[np.asarray(own) == 0].any()
        assert alpha.max() == 255
    hard = cut(photo, threshold=0.3).matte
    assert hard.getpixel((33, 30)) == 255
    assert sum(hard.histogram()[1:255]) == 0
    smaller = cut(photo, shift=-2).measured.bbox
    assert smaller == (32, 22, 64, 42)


@pytest.mark.parametrize(
    "edge", [{"shift": 6}, {"soften": 3}, {"shift": -3}, {"threshold": 0.2, "soften": 1}]
)
def test_what_a_new_edge_shows_has_the_subject_s_colours(edge: dict[str, float]) -> None:
    """A red subject on blue: no pixel that is shown is blue, wherever the edge is."""
    soft = Image.new("L", (1200, 900))
    ImageDraw.Draw(soft).ellipse((300, 200, 900, 700), fill=255)
    photo = Image.new("RGB", soft.size, (20, 30, 200))
    photo.paste((210, 40, 30), mask=soft.filter(ImageFilter.GaussianBlur(3)))

    class Red(FakeNetwork):
        def run(self, batch: Any) -> Any:
            return batch[:, 0] / 0.8

    cutout = cut(photo, Red(), refine=True, **edge).image
    red, _, blue, alpha = (np.asarray(band, int) for band in cutout.split())
    seen = alpha > 25
    assert np.count_nonzero(seen & (alpha < 255)) > 1000 or edge.get("shift")
    assert (blue - red)[seen].max() < 0
    assert np.percentile(blue[seen], 99.5) < 90


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
