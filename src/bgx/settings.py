"""What the user asked for: small frozen values, checked when they are made.

The two doors (:mod:`bgx.cli`, :mod:`bgx.api`) collapse their options into these at the border; the
rooms behind take them whole. A wrong value raises :class:`~bgx.errors.UsageError` here and nowhere
later.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from bgx.errors import UsageError

DEFAULT_MODEL = "u2net"
DEFAULT_MAX_SIZE = 800
DEFAULT_MAX_PIXELS = 200_000_000

Existing = Literal["skip", "update", "overwrite"]
Format = Literal["png", "webp", "jpg", "avif", "tiff"]
PngLevel = Literal["fast", "small"]
Colour = tuple[int, int, int]
"""sRGB red, green, blue, each 0..255."""

FORMATS: tuple[Format, ...] = get_args(Format)
OPAQUE_FORMATS: frozenset[Format] = frozenset({"jpg"})
"""Formats that cannot store alpha: a cut-out in them needs a background."""

FORMAT_BY_SUFFIX: dict[str, Format] = {
    ".png": "png",
    ".webp": "webp",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".avif": "avif",
    ".tif": "tiff",
    ".tiff": "tiff",
}

DEVICES = ("auto", "cpu", "cuda", "tensorrt", "directml", "coreml", "openvino")
_DEVICE_WITH_INDEX = re.compile(r"(cuda|tensorrt|directml):(\d+)")


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How photos are read.

    max_size: long side of the working image, pixels. max_pixels: width x height above which a
    picture is refused before it is decoded.
    """

    max_size: int = DEFAULT_MAX_SIZE
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        if self.max_size < 64:
            raise UsageError(f"--max-size {self.max_size}: use 64 or more")
        if self.max_pixels < 1:
            raise UsageError(f"--max-pixels {self.max_pixels}: use 1 or more")


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """What is written.

    format: None takes it from the target's suffix. quality: 1..100 for lossy JPEG, WebP, AVIF; None
    is lossless for WebP and the default of the others. background: flatten onto this colour.
    mask_only: write the matte instead of the cut-out. png_level: "small" takes some thirty times as
    long for a file a fifth smaller.
    """

    format: Format | None = None
    quality: int | None = None
    background: Colour | None = None
    mask_only: bool = False
    png_level: PngLevel = "fast"

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise UsageError(f"--format {self.format}: use one of {', '.join(FORMATS)}")
        if self.quality is not None:
            if not 1 <= self.quality <= 100:
                raise UsageError(f"--quality {self.quality}: use 1 to 100")
            if self.format in {"png", "tiff"}:
                raise UsageError(
                    f"--quality has no meaning for {self.format}, which is lossless; leave it out"
                )
        if self.mask_only and self.background is not None:
            raise UsageError("--mask-only writes the matte and needs no --background")


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Where the network runs.

    device: one of DEVICES, cuda, tensorrt and directml also with an index (``cuda:1``). workers:
    pictures in work at once. threads: threads of one network run. batch_size: pictures of one
    network run on a GPU. None leaves the choice to bgx.
    """

    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.device not in DEVICES and not _DEVICE_WITH_INDEX.fullmatch(self.device):
            raise UsageError(
                f"--device {self.device}: use one of {', '.join(DEVICES)}; "
                "cuda, tensorrt and directml take an index (cuda:0)"
            )
        for option, value in (
            ("--workers", self.workers),
            ("--threads", self.threads),
            ("--batch-size", self.batch_size),
        ):
            if value is not None and value < 1:
                raise UsageError(f"{option} {value}: use 1 or more")

    @property
    def kind(self) -> str:
        """The device without its index."""
        return self.device.partition(":")[0]

    @property
    def index(self) -> int:
        """The device's index, 0 where none was given."""
        return int(self.device.partition(":")[2] or 0)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Where networks come from.

    registry: the user's own file of tables, read after the built-in one. folder: where model files
    are kept; None is the platform's cache folder. mirror: base URL that replaces the published one.
    offline: never touch the network.
    """

    registry: Path | None = None
    folder: Path | None = None
    mirror: str | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        if self.mirror is not None and not self.mirror.startswith(("https://", "http://")):
            raise UsageError(f"BGX_MODEL_MIRROR {self.mirror}: use an http(s) address")

    @classmethod
    def from_environment(cls, *, offline: bool = False) -> ModelSettings:
        """Read BGX_MODELS, BGX_HOME, BGX_MODEL_MIRROR and BGX_OFFLINE."""

        def path(name: str) -> Path | None:
            return Path(os.environ[name]).expanduser() if os.environ.get(name) else None

        return cls(
            registry=path("BGX_MODELS"),
            folder=path("BGX_HOME"),
            mirror=os.environ.get("BGX_MODEL_MIRROR") or None,
            offline=offline or os.environ.get("BGX_OFFLINE", "").lower() in {"1", "true", "yes"},
        )
