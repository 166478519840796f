"""The settings that pictures are made with, and what is prepared from them once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgx.image.canvas import place
from bgx.image.finish import Finisher

if TYPE_CHECKING:
    from bgx.options import OutputSettings
    from bgx.settings import ReadSettings


class Recipe:
    """The settings for any number of pictures. Immutable, so threads can share it.

    preview: also make a small picture of each before and after
    (:attr:`bgx.run.outcome.Done.preview`). Raises UsageError if the background's file cannot be
    read.
    """

    def __init__(
        self, read: ReadSettings, output: OutputSettings, *, preview: bool = False
    ) -> None:
        self.read = read
        self.output = output
        self.preview = preview
        self.finisher = Finisher(output, read)

    def count_pixels(self, size: tuple[int, int]) -> int:
        """Pixels of a photo or its finished picture, whichever has more, for the memory they take.

        size: the photo's width and height. A photo with a region counts for a third more, because
        the region's pixels are held twice.
        """
        pixels = size[0] * size[1]
        if self.output.region is not None:
            pixels += pixels // 3
        if not self.output.canvas.asked:
            return pixels
        # The canvas is largest for a subject that fills the photo.
        width, height = place(size, (0, 0, *size), self.output.canvas).size
        return max(pixels, width * height)
