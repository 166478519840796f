"""True colours under the matte, nothing where there is no subject, exact plain backgrounds."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from bgx.api import Remover
from bgx.errors import UsageError
from bgx.image.compose import cut_out, flatten
from bgx.image.matte import multiply_alpha, stretch_matte, upsample_matte
from bgx.image.read import read_photo
from bgx.parsers import parse_colour
from bgx.settings import ReadSettings
from support.pictures import difference, encode, encode_file, product

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))
_colours = st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def _photos(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours [height, width, 3] and alpha [height, width] with many zeros and full values."""
    shape = draw(_shapes)
    alphas = st.one_of(st.sampled_from([0, 255]), st.integers(0, 255))
    return draw(arrays(np.uint8, (*shape, 3))), draw(arrays(np.uint8, shape, elements=alphas))


def _images(
    photo: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> tuple[Image.Image, Image.Image]:
    colours, alpha = photo
    return Image.fromarray(colours), Image.fromarray(alpha)


@given(_photos())
def test_a_cut_out_has_the_photo_s_own_colours_and_nothing_beside_them(
    photo: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    colours, alpha = photo
    image = cut_out(*_images(photo))
    assert image.mode == "RGBA"
    pixels = np.asarray(image)
    assert np.array_equal(pixels[..., 3], alpha)
    assert np.array_equal(pixels[alpha > 0, :3], colours[alpha > 0])
    assert not pixels[alpha == 0].any()


@given(photo=_photos(), background=_colours)
def test_flattening_is_a_blend_and_exact_at_both_ends(
    photo: tuple[NDArray[np.uint8], NDArray[np.uint8]], background: tuple[int, int, int]
) -> None:
    colours, alpha = photo
    image = flatten(*_images(photo), background)
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(int)
    share = alpha[..., None] / 255
    assert np.abs(pixels - (colours * share + np.array(background) * (1 - share))).max() <= 1
    assert (pixels[alpha == 0] == background).all()
    assert np.array_equal(pixels[alpha == 255], colours[alpha == 255])


def test_half_a_colour_on_white() -> None:
    photo, half = Image.new("RGB", (4, 4), (200, 100, 50)), Image.new("L", (4, 4), 128)
    assert difference(flatten(photo, half, (255, 255, 255)).getpixel((1, 1)), (227, 177, 152)) <= 1
    straight = cut_out(photo, half)
    assert straight.getpixel((1, 1)) == (200, 100, 50, 128)
    white = Image.new("RGBA", (4, 4), (255, 255, 255, 255))
    shown = Image.alpha_composite(white, straight).getpixel((1, 1))
    assert difference(shown, (227, 177, 152, 255)) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    photo, alpha = Image.new("RGB", size, (9, 8, 7)), Image.new("L", size, 3)
    assert flatten(photo, alpha, (0, 0, 0)).size == size
    assert cut_out(photo, alpha).getpixel((0, 0)) == (9, 8, 7, 3)


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("white", (255, 255, 255)),
        (" Tomato ", (255, 99, 71)),
        ("#fff", (255, 255, 255)),
        ("#F0F0f1", (240, 240, 241)),
        ("rgb(1, 2, 3)", (1, 2, 3)),
    ],
)
def test_colours_as_people_write_them(text: str, colour: tuple[int, int, int]) -> None:
    assert parse_colour(text) == colour


@pytest.mark.parametrize("text", ["", "whiteish", "#12345", "#112233445", "fff", "255,255,255"])
def test_what_is_no_colour_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--background"):
        parse_colour(text)


# The whole way of one picture, the network's part played by the true matte ------------------------

GOLDEN: dict[str, tuple[dict[str, Any], float, float, float]] = {
    # The options of the file that is read, and the mean differences that are allowed, in grey
    # levels: of alpha, on white, and of the subject's colours.
    "PNG": ({}, 0.45, 0.3, 0.0),
    "WEBP": ({"lossless": True}, 0.45, 0.3, 0.0),
    "JPEG": ({"quality": 95, "subsampling": 0}, 0.45, 0.4, 0.15),
}


@pytest.mark.parametrize("file_format", GOLDEN)
def test_golden_cut_out(file_format: str) -> None:
    """A drawn ball, cut out of its file: the result against the ball as it was drawn."""
    options, of_alpha, on_white, of_subject = GOLDEN[file_format]
    size = (1200, 900)
    drawn, true_alpha = product(size)
    photo = read_photo(encode(drawn, file_format, **options), ReadSettings(), name="ball")
    # A network sees 320 x 320 and says low numbers and high ones, not 0 and 1.
    _, seen = product((426, 320))
    said = 0.1 + 0.7 * np.asarray(seen.resize((320, 320), Image.Resampling.BOX), np.float32) / 255
    alpha = multiply_alpha(upsample_matte(stretch_matte(said), photo.image.size), photo.alpha)
    data = encode_file(cut_out(photo.image, alpha), "png", name="ball")
    with Image.open(io.BytesIO(data)) as result:
        assert (result.mode, result.size) == ("RGBA", size)
        shown = _show_on_white(result)
    _compare("alpha", result.getchannel("A"), true_alpha, of_alpha)
    _compare("on white", shown, flatten(drawn, true_alpha, (255, 255, 255)), on_white)
    inside = true_alpha.point([0] * 255 + [255], "1")
    blank = Image.new("RGB", size)
    _compare(
        "colours of the subject",
        Image.composite(result.convert("RGB"), blank, inside),
        Image.composite(drawn, blank, inside),
        of_subject,
    )


def _show_on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _compare(what: str, result: Image.Image, golden: Image.Image, allowed: float) -> None:
    """The mean difference in grey levels, 0..255."""
    found = float(np.abs(np.asarray(result, float) - np.asarray(golden, float)).mean())
    assert found <= allowed, f"{what}: mean difference {found:.3f}, allowed {allowed:.3f}"


# The real network, against the tool people come from ----------------------------------------------


@pytest.mark.weights
def test_the_matte_is_that_of_rembg(weights: Path, shared: Path) -> None:
    """rembg's published procedure: the whole photo to 320 x 320, maximum, ImageNet, min-max."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    remover = Remover(str(weights), device="cpu")
    photos = sorted((shared / "rembg").glob("*.jpg"))
    assert photos
    for path in photos:
        with Image.open(path) as photo:
            pixels = np.asarray(photo.convert("RGB").resize((320, 320), Image.Resampling.LANCZOS))
        scaled = ((pixels / pixels.max() - mean) / deviation).transpose(2, 0, 1)[None]
        said = session.run(None, {"input.1": scaled.astype(np.float32)})[0][0, 0]
        stretched = (said - said.min()) / (said.max() - said.min())
        theirs = Image.fromarray((stretched * 255).astype(np.uint8))
        theirs = theirs.resize(photo.size, Image.Resampling.LANCZOS)
        _compare(path.name, remover.cut(path, refine=False).matte, theirs, 0.004 * 255)


@pytest.mark.weights
def test_the_cut_out_looks_like_that_of_rembg(weights: Path, shared: Path) -> None:
    """On black, where it does not matter that rembg stores colours already multiplied by alpha."""
    imagehash = pytest.importorskip("imagehash")
    remover = Remover(str(weights), device="cpu")
    cutout = remover.cut(shared / "rembg/anime-girl-1.jpg", refine=False)
    ours = flatten(cutout.image.convert("RGB"), cutout.matte, (0, 0, 0))
    with Image.open(shared / "rembg/anime-girl-1.u2netp.png") as theirs:
        assert imagehash.phash(ours) == imagehash.phash(theirs.convert("RGB"))
        assert imagehash.phash(cutout.matte) == imagehash.phash(theirs.getchannel("A"))
