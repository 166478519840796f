"""Draw docs/images/before-after.jpg: ``python .ci/before_after.py``.

Left the sample photo, in the middle its cut-out on a checkerboard, on the right a finished picture.
All of it is made with `lite`, the network that comes with bgx.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bgx import Remover

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "tests" / "data" / "sample.jpg"
TARGET = REPOSITORY / "docs" / "images" / "before-after.jpg"

SIZE = (400, 300)
GAP = 12
SQUARE = 10


def draw() -> Image.Image:
    remover = Remover("lite")
    cutout = remover.cut(SAMPLE).image
    finished = remover.cut(
        SAMPLE, canvas="4:3", fill="85%", background="#f4f0ea", shadow="contact"
    ).image
    across, down = (np.arange(side) // SQUARE for side in SIZE)
    light = (down[:, None] + across) % 2 == 0
    board = Image.fromarray(np.where(light, 255, 204).astype(np.uint8)).convert("RGB")
    small = cutout.resize(SIZE, Image.Resampling.LANCZOS)
    board.paste(small, mask=small)
    picture = Image.new("RGB", (3 * SIZE[0] + 2 * GAP, SIZE[1]), "white")
    with Image.open(SAMPLE) as photo:
        for number, panel in enumerate((photo, board, finished)):
            shown = panel.resize(SIZE, Image.Resampling.LANCZOS)
            picture.paste(shown, (number * (SIZE[0] + GAP), 0))
    return picture


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    draw().save(TARGET, quality=85)
