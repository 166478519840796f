"""The network's input is the formula of its registry entry, in the slot it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgx.image.tensor import fill_tensor
from support.pictures import product, quarters

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def tensor(
    image: Image.Image,
    size: tuple[int, int] = (320, 320),
    *,
    scale: float | Literal["image_max"] = "image_max",
) -> NDArray[np.float32]:
    out = np.full((3, size[1], size[0]), np.nan, np.float32)
    fill_tensor(image, out, mean=MEAN, std=STD, scale=scale)
    return out


@pytest.mark.parametrize("scale", [255.0, "image_max"])
def test_it_is_the_published_procedure(scale: float | Literal["image_max"]) -> None:
    """U²-Net's loader: Lanczos, divide, subtract the mean, divide by the deviation."""
    photo, _ = product((800, 600))
    photo = photo.point([value * 4 // 5 for value in range(256)] * 3)
    pixels = np.asarray(photo.resize((320, 320), Image.Resampling.LANCZOS)).astype(np.float64)
    scaled = pixels / (pixels.max() if scale == "image_max" else scale)
    expected = ((scaled - MEAN) / STD).transpose(2, 0, 1)
    assert np.abs(tensor(photo, scale=scale) - expected).max() < 1e-5


@given(
    red=st.integers(0, 255),
    green=st.integers(0, 255),
    blue=st.integers(0, 255),
    level=st.integers(1, 255),
)
def test_the_brightest_value_is_one(red: int, green: int, blue: int, level: int) -> None:
    """A dim picture gives the same input as the same picture lit brightly."""
    out = np.empty((3, 8, 8), np.float32)
    fill_tensor(Image.new("RGB", (8, 8), (red, green, blue)), out, **PLAIN, scale="image_max")
    brightest = max(red, green, blue)
    assert out[:, 0, 0] == pytest.approx(np.array([red, green, blue]) / (brightest or 1), abs=1e-6)


def test_black_is_finite() -> None:
    assert np.isfinite(tensor(Image.new("RGB", (5, 5)))).all()


def test_channels_are_red_green_blue_and_rows_run_down() -> None:
    out = np.empty((3, 48, 64), np.float32)
    fill_tensor(quarters(), out, **PLAIN, scale=255.0)
    assert (out[:, 12, 16] * 255).round().tolist() == [230, 30, 20]
    assert (out[:, 12, 48] * 255).round().tolist() == [20, 200, 40]
    assert (out[:, 36, 16] * 255).round().tolist() == [30, 40, 220]


@pytest.mark.parametrize("size", [(320, 320), (64, 128), (1, 1)])
@pytest.mark.parametrize("photo_size", [(1, 1), (1, 2000), (640, 480), (320, 320)])
def test_any_photo_fits_any_input(size: tuple[int, int], photo_size: tuple[int, int]) -> None:
    assert np.isfinite(tensor(Image.new("RGB", photo_size, (9, 99, 199)), size)).all()


def test_only_its_own_slot_of_the_batch_is_written() -> None:
    batch = np.full((3, 3, 16, 16), np.nan, np.float32)
    fill_tensor(quarters(), batch[1], mean=MEAN, std=STD, scale=255.0)
    assert np.isfinite(batch[1]).all()
    assert np.isnan(batch[[0, 2]]).all()
    assert np.array_equal(batch[1], tensor(quarters(), (16, 16), scale=255.0))
