"""How finished pictures are made: the settings, and what is prepared from them once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgx.image.canvas import place
from bgx.image.finish import Finisher

if TYPE_CHECKING:
    from bgx.options import OutputSettings
    from bgx.settings import ReadSettings


class Recipe:
    """Settings of pictures of one kind. Thread-safe: it is not changed after it is made.

    preview: make a small picture before and after of each (:attr:`bgx.run.outcome.Done.preview`).
    Raises UsageError where the background's file cannot be read.
    """

    def __init__(
        self, read: ReadSettings, output: OutputSettings, *, preview: bool = False
    ) -> None:
        self.read = read
        self.output = output
        self.preview = preview
        self.finisher = Finisher(output, read)

    def count_pixels(self, size: tuple[int, int]) -> int:
        """Pixels of the larger of a photo and its finished picture. size: the photo's."""
        pixels = size[0] * size[1]
        if not self.output.canvas.asked:
            return pixels
        # No subject asks for a larger canvas than one that fills the photo.
        width, height = place(size, (0, 0, *size), self.output.canvas).size
        return max(pixels, width * height)
