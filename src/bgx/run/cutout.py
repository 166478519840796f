"""A finished picture in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.image.compose import flatten
from bgx.image.encode import encode_picture, encode_within, format_of
from bgx.image.write import write_file
from bgx.settings import OPAQUE_FORMATS, WHITE, OutputSettings

if TYPE_CHECKING:
    from PIL import Image

    from bgx.image.metadata import Metadata
    from bgx.run.outcome import Measured
    from bgx.settings import Format, PngLevel


@dataclass(frozen=True, slots=True)
class Cutout:
    """A finished picture.

    image: RGBA with straight alpha; RGB where a background was asked for; L for the matte alone.
    separate: the matte, where it is not the image's own alpha: many cut-outs in memory need not
    hold it twice. icc: what describes the image. dpi, metadata: the photo's own. measured: what it
    came to. output: what was asked for.
    """

    image: Image.Image
    separate: Image.Image | None = field(repr=False)
    icc: bytes | None = field(repr=False)
    dpi: tuple[float, float] | None
    measured: Measured
    metadata: Metadata | None = field(default=None, repr=False)
    output: OutputSettings = field(default=OutputSettings(), repr=False)

    @property
    def matte(self) -> Image.Image:
        """The subject's alpha, mode L, the image's size; not its shadow's."""
        return self.image.getchannel("A") if self.separate is None else self.separate

    def encode(
        self,
        file_format: Format,
        *,
        name: str = "cut-out",
        quality: int | None = None,
        png_level: PngLevel | None = None,
        threads: int = 1,
    ) -> bytes:
        """The file's bytes; transparency goes on white where the format has none.

        quality, png_level: None is what was asked for with the cut-out. Raises UnwritableError.
        """
        pieces, _ = self.encode_noted(
            file_format, name=name, quality=quality, png_level=png_level, threads=threads
        )
        return b"".join(pieces)

    def encode_noted(
        self,
        file_format: Format,
        *,
        name: str,
        quality: int | None = None,
        png_level: PngLevel | None = None,
        threads: int = 1,
    ) -> tuple[list[bytes], tuple[str, ...]]:
        """As :meth:`encode`, in pieces, with notes for the report."""
        output = self.output
        image = self.image
        if file_format in OPAQUE_FORMATS and image.mode == "RGBA":
            image = flatten(image.convert("RGB"), image.getchannel("A"), WHITE)
        quality = quality or output.quality

        def encode(quality: int | None) -> list[bytes]:
            return encode_picture(
                image,
                file_format,
                name=name,
                quality=quality,
                png_level=png_level or output.png_level,
                icc=self.icc,
                dpi=self.dpi,
                metadata=self.metadata,
                exact_white=output.canvas.asked and output.background in {None, WHITE},
                threads=threads,
            )

        if output.max_bytes is None:
            return encode(quality), ()
        pieces, lowered = encode_within(output.max_bytes, encode, file_format, quality, name=name)
        note = f"quality {lowered} to stay within {output.max_bytes:,} bytes"
        return pieces, (note,) if lowered else ()

    def save(self, target: str | Path, *, quality: int | None = None) -> None:
        """Write to a path whose suffix names the format, in one step: complete or not at all."""
        target = Path(target)
        file_format = format_of(target)
        write_file(target, self.encode(file_format, quality=quality, name=str(target)))
