"""Makes the finished file of an order."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bgx.image.encode import encode_picture
from bgx.run.outcome import Done, Job, as_done
from bgx.run.recipe import Recipe
from bgx.run.report import make_row
from bgx.serve.cache import make_entry
from bgx.storage.memory import InMemory

if TYPE_CHECKING:
    from bgx.options import OutputSettings
    from bgx.run.cutout import Cutout
    from bgx.run.engine import Engine
    from bgx.serve.cache import Entry
    from bgx.serve.requests import Package
    from bgx.settings import ReadSettings

MEDIA = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
}
PICTURE = "picture"
"""Name of a client's picture in messages."""


@dataclass(frozen=True, slots=True)
class Order:
    """A picture to make, with all its settings.

    key: of the result in the cache. source: the photo's file. pixels: of the photo. model: as
    returned by :meth:`bgx.serve.networks.Networks.choose`.
    """

    key: str
    source: bytes = field(repr=False)
    pixels: int
    output: OutputSettings
    model: str | None
    package: Package


def make_result(order: Order, engine: Engine, read: ReadSettings) -> Entry:
    """Have the engine cut the picture out, and wait for it. Raises BgxError."""
    recipe = Recipe(read, order.output)
    target = None if order.package == "zip" else _Collected()
    job = Job(InMemory(order.source, PICTURE), target)
    outcome = as_done(engine.submit(job, recipe, alone=True).result())
    if target is None:
        data, media = _pack(outcome), "application/zip"
    else:
        data, media = b"".join(target.pieces), MEDIA[order.output.format]
    return make_entry(data, media, _describe(outcome))


class _Collected:
    """A job's target that keeps the file in memory."""

    def __init__(self) -> None:
        self.pieces: tuple[bytes, ...] = ()

    def __str__(self) -> str:
        return PICTURE

    def link(self, page: object) -> str:
        """Empty: there is no file to link to."""
        return ""

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        """Keep the file's pieces."""
        self.pieces = pieces
        return True

    def is_there(self) -> bool:
        """Whether the file was written."""
        return bool(self.pieces)


def _pack(outcome: Done) -> bytes:
    """color.jpg with the subject's colours, and alpha.png."""
    cutout: Cutout | None = outcome.cutout
    if cutout is None:
        raise AssertionError("a job without a target leaves its cut-out in memory")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        colours = encode_picture(
            cutout.image.convert("RGB"), "jpg", name=PICTURE, quality=95, icc=cutout.icc
        )
        archive.writestr("color.jpg", b"".join(colours))
        alpha = cutout.image.getchannel("A") if cutout.image.mode == "RGBA" else cutout.matte
        archive.writestr("alpha.png", b"".join(encode_picture(alpha, "png", name=PICTURE)))
    return stream.getvalue()


def _describe(outcome: Done) -> dict[str, Any]:
    """Facts about a result: its row of the report without names, and its size before resizing."""
    facts = make_row(outcome)
    for name in ("source", "target", "status"):
        del facts[name]
    measured = outcome.measured
    facts["full_width"], facts["full_height"] = measured.full
    return facts
