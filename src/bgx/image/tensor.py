"""Convert the working image to the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

Triple = tuple[float, float, float]


def fill_tensor(
    working: Image.Image,
    out: NDArray[np.float32],
    *,
    mean: Triple,
    std: Triple,
    scale: float | Literal["image_max"],
) -> None:
    """Write ``(pixel / scale - mean) / std`` of a picture into one place of a batch.

    working: mode RGB, any size. out: float32 [3, height, width]; the picture is resized to this
    size. scale: the divisor, or ``"image_max"`` for the picture's highest value, as in U²-Net's
    loader (data_loader.py, ToTensorLab).
    """
    _, height, width = out.shape
    pixels = np.asarray(working.resize((width, height), Image.Resampling.LANCZOS))
    divisor = float(pixels.max()) or 1.0 if scale == "image_max" else scale
    for channel in range(3):
        np.multiply(
            pixels[..., channel], np.float32(1 / (divisor * std[channel])), out=out[channel]
        )
        out[channel] -= np.float32(mean[channel] / std[channel])
