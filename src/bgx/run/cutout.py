"""A finished picture in memory, and how it is encoded as a file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bgx.image.compose import flatten
from bgx.image.encode import encode_picture, encode_within
from bgx.image.metadata import fit_metadata
from bgx.options import OPTIONS, OutputSettings, format_of
from bgx.settings import OPAQUE_FORMATS, WHITE
from bgx.storage import open_file

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from bgx.image.metadata import Metadata
    from bgx.image.trust import Trust
    from bgx.settings import Format, PngLevel


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a cut-out.

    width, height: of the result, pixels. coverage: mean alpha, 0..1. bbox: the subject's left, top,
    right, bottom in pixels; None if there is no subject. trust: how far the network's matte can be
    trusted. seconds: by step (read, infer, compose, write). notes: remarks on the picture for the
    report. full: width and height without ``--resize``.
    """

    width: int
    height: int
    coverage: float
    bbox: tuple[int, int, int, int] | None
    trust: Trust
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    full: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Cutout:
    """A finished picture.

    image: RGBA with straight alpha; RGB if it has a background; L if it is the matte alone.
    separate: the matte if it is not the image's own alpha (stored only then, to save memory). icc:
    the image's ICC profile. dpi, metadata: the photo's own. output: the settings it was made with.
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
        """The subject's alpha without its shadow, mode L, of the image's size."""
        return self.image.getchannel("A") if self.separate is None else self.separate

    def encode(
        self,
        file_format: Format,
        *,
        name: str = "cut-out",
        quality: int | None = None,
        png_level: PngLevel | None = None,
    ) -> bytes:
        """The picture as a file's bytes; a format without alpha gets a white background.

        quality, png_level: None is the value of the options that the cut-out was made with. Raises
        UsageError (a wrong value) and UnwritableError.
        """
        asked = {"format": file_format, "quality": quality, "png_level": png_level}
        given = {name: value for name, value in asked.items() if value is not None}
        read = {name: OPTIONS[name].read(value) for name, value in given.items()}
        output = self.output._replace(**read)
        pieces, _ = encode_cutout(replace(self, output=output), name=name)
        return b"".join(pieces)

    def save(self, target: str | Path, *, quality: int | None = None) -> None:
        """Write the picture to a file, completely or not at all; the suffix names the format.

        Raises UsageError (unknown suffix, wrong quality), UnwritableError and OutputError.
        """
        content = self.encode(format_of(target), quality=quality, name=str(target))
        open_file(target).write(content)


def encode_cutout(
    cutout: Cutout, *, name: str, threads: int = 1
) -> tuple[list[bytes], tuple[str, ...]]:
    """The file's bytes, in pieces, and remarks for the report.

    name: of the file, for messages. threads: how many the encoder may use. Raises UnwritableError.
    """
    output, image = cutout.output, cutout.image
    file_format = output.format
    if file_format in OPAQUE_FORMATS and image.mode == "RGBA":
        image = flatten(image.convert("RGB"), image.getchannel("A"), WHITE)

    metadata, left_out = fit_metadata(cutout.metadata, file_format)

    def encode(quality: int | None) -> list[bytes]:
        return encode_picture(
            image,
            file_format,
            name=name,
            quality=quality,
            png_level=output.png_level,
            icc=cutout.icc,
            dpi=cutout.dpi,
            metadata=metadata,
            exact_white=output.canvas.asked and output.background in {None, WHITE},
            threads=threads,
        )

    if output.max_bytes is None:
        return encode(output.quality), tuple(left_out)
    pieces, lowered = encode_within(
        output.max_bytes, encode, file_format, output.quality, name=name
    )
    note = f"quality {lowered} to stay within {output.max_bytes:,} bytes"
    return pieces, (*left_out, note) if lowered else tuple(left_out)
