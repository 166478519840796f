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
MatteKind = Literal["clean", "raw"]
Precision = Literal["auto", "int8", "fp16", "fp32"]
ShadowKind = Literal["soft", "contact"]
Align = Literal["center", "bottom"]
ColourSpace = Literal["keep", "srgb"]
Colour = tuple[int, int, int]
"""sRGB red, green, blue, each 0..255."""

WHITE: Colour = (255, 255, 255)

MAX_SIDE = 30_000
"""Of a finished picture whose size is asked for, pixels."""

FORMATS: tuple[Format, ...] = get_args(Format)
LOSSLESS_FORMATS: frozenset[Format] = frozenset({"png", "tiff"})
"""Formats that have no quality to choose."""

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

DEVICES = ("auto", "cpu", "cuda", "tensorrt", "directml", "coreml", "openvino", "webgpu")
_MOST_AT_ONCE = 1024
# The words that Click takes too.
_YES = frozenset({"1", "true", "t", "yes", "y", "on"})
_NO = frozenset({"", "0", "false", "f", "no", "n", "off"})
_DEVICE_WITH_INDICES = re.compile(r"(cuda|tensorrt|directml):\d+(,\d+)*")


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
class Length:
    """Pixels of the finished picture, or percent of the subject's longer side."""

    value: float
    unit: Literal["px", "%"]


@dataclass(frozen=True, slots=True)
class CanvasSettings:
    """How the finished picture is framed; nothing asked is the photo as it is.

    crop: frame the subject; size, aspect, margin and fill do so too. margin: room around it. size:
    width and height, pixels. aspect: width to height; the size is what the subject needs. fill:
    share (0..1) of the width or height, whichever it reaches first, that the subject takes. align:
    where the subject stands. upscale: enlarge where that is needed. resize: width and height that
    the finished picture fits in, pixels.
    """

    crop: bool = False
    margin: Length | None = None
    size: tuple[int, int] | None = None
    aspect: tuple[int, int] | None = None
    fill: float | None = None
    align: Align = "center"
    upscale: bool = False
    resize: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for option, size in (("--canvas", self.size), ("--resize", self.resize)):
            if size is not None and not all(1 <= side <= MAX_SIDE for side in size):
                raise UsageError(
                    f"{option} {size[0]}x{size[1]}: use sides of 1 to {MAX_SIDE:,} pixels"
                )
        if self.size is not None and self.aspect is not None:
            raise UsageError("--canvas: give a size or an aspect, not both")
        if self.size is not None and self.resize is not None:
            raise UsageError("--resize: --canvas WxH is the size already; leave one of them out")
        if self.aspect is not None and not all(1 <= part <= 1000 for part in self.aspect):
            raise UsageError(f"--canvas {self.aspect[0]}:{self.aspect[1]}: use 1 to 1000 each")
        if self.fill is not None and not 0.01 <= self.fill <= 1:
            raise UsageError(f"--fill {self.fill:.0%}: use 1% to 100%")
        if self.fill is not None and self.margin is not None:
            raise UsageError("--fill and --margin both say how much room; leave one of them out")
        if self.margin is not None:
            self._check_margin(self.margin)
        if self.align not in get_args(Align):
            raise UsageError(f"--align {self.align}: use one of {', '.join(get_args(Align))}")

    def _check_margin(self, margin: Length) -> None:
        most = 10_000 if margin.unit == "px" else 100
        shown = f"{margin.value:g}{margin.unit}"
        if not 0 <= margin.value <= most:
            raise UsageError(f"--margin {shown}: use 0{margin.unit} to {most}{margin.unit}")
        limit = self.limit
        if limit is not None and margin.unit == "px" and 2 * margin.value >= min(limit):
            raise UsageError(
                f"--margin {shown}: leaves nothing of {limit[0]:g} x {limit[1]:g}; use less"
            )

    @property
    def limit(self) -> tuple[float, float] | None:
        """The width and height the frame may reach, None where it has the subject's own size."""
        if self.size is not None or self.resize is None:
            return self.size
        width, height = self.resize
        if self.aspect is None:
            return width, height
        across, down = self.aspect
        return min(width, height * across / down), min(height, width * down / across)

    @property
    def frames_subject(self) -> bool:
        """Whether the subject decides what is shown."""
        return self.crop or any(
            value is not None for value in (self.margin, self.size, self.aspect, self.fill)
        )

    @property
    def asked(self) -> bool:
        """Whether the finished picture is framed otherwise than the photo."""
        return self.frames_subject or self.resize is not None


@dataclass(frozen=True, slots=True)
class Shadow:
    """A shadow below the subject. strength: 0 (none) to 1 (black)."""

    kind: ShadowKind
    strength: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(ShadowKind):
            raise UsageError(f"--shadow {self.kind}: use one of {', '.join(get_args(ShadowKind))}")
        if not 0 <= self.strength <= 1:
            raise UsageError(f"--shadow {self.kind}:{self.strength:.0%}: use 0% to 100%")


@dataclass(frozen=True, slots=True)
class Backdrop:
    """The photo itself behind the subject, blurred or without colour.

    radius: of the blur, its standard deviation in pixels of the finished picture; None is a
    fiftieth of its longer side.
    """

    kind: Literal["blur", "grey"]
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.radius is not None and not 0.5 <= self.radius <= 1000:
            raise UsageError(f"--background blur:{self.radius:g}: use 0.5 to 1000 pixels")


Background = Colour | Path | Backdrop
"""A colour, an image file, or the photo itself."""


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """What is written.

    format: None takes it from the target's suffix. quality: 1..100 for lossy JPEG, WebP, AVIF; None
    is lossless for WebP and the default of the others. background: what the subject is put on.
    mask_only: write the matte instead of the cut-out. png_level: "small" takes many times as long
    for a file that is mostly smaller. canvas: the framing. shadow: below the subject. max_bytes: of
    the file; the quality of lossy formats is lowered as far as that needs. colour: keep the photo's
    profile or convert to sRGB. keep_metadata: write the photo's EXIF and XMP, place and serial
    numbers included. matte: "raw" is the network's own, "clean" has no specks and pin-holes.
    refine: bring the matte to the photo's own edges, and half-transparent pixels to the subject's
    own colours; keep_colours: the first alone.
    """

    format: Format | None = None
    quality: int | None = None
    background: Background | None = None
    mask_only: bool = False
    png_level: PngLevel = "fast"
    canvas: CanvasSettings = CanvasSettings()
    shadow: Shadow | None = None
    max_bytes: int | None = None
    colour: ColourSpace = "keep"
    keep_metadata: bool = False
    matte: MatteKind = "raw"
    refine: bool = False
    keep_colours: bool = False

    @property
    def reads(self) -> list[Path]:
        """Files that are read for it."""
        return [self.background] if isinstance(self.background, Path) else []

    @property
    def needs_colours(self) -> bool:
        """Whether the photo's own pixels go into what is written."""
        return not self.mask_only or self.refine or self.canvas.asked

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise UsageError(f"--format {self.format}: use one of {', '.join(FORMATS)}")
        if self.quality is not None:
            if not (isinstance(self.quality, int) and 1 <= self.quality <= 100):
                raise UsageError(f"--quality {self.quality}: use 1 to 100")
            if self.format in LOSSLESS_FORMATS:
                raise UsageError(
                    f"--quality has no meaning for {self.format}, which is lossless; leave it out"
                )
        for option, value in (("--background", self.background), ("--shadow", self.shadow)):
            if self.mask_only and value is not None:
                raise UsageError(f"--mask-only writes the matte and needs no {option}")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise UsageError(f"--max-bytes {self.max_bytes}: use 1 or more")
        if self.colour not in get_args(ColourSpace):
            raise UsageError(f"--colour {self.colour}: use keep or srgb")
        if self.png_level not in get_args(PngLevel):
            raise UsageError(f"--png-level {self.png_level}: use fast or small")
        if self.matte not in get_args(MatteKind):
            raise UsageError(f"--matte {self.matte}: use clean or raw")


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Where the network runs.

    device: one of DEVICES; cuda, tensorrt and directml also with an index (``cuda:1``) or several
    (``cuda:0,1``). workers: pictures in work at once. threads: threads of one network run.
    batch_size: pictures of one network run on a GPU. None leaves the choice to bgx. precision: int8
    and fp16 run the copies made by ``bgx models optimize`` for the CPU and for a GPU, auto does so
    where one passed.
    """

    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise UsageError(
                f"--precision {self.precision}: use one of {', '.join(get_args(Precision))}"
            )
        if self.device not in DEVICES and not _DEVICE_WITH_INDICES.fullmatch(self.device):
            raise UsageError(
                f"--device {self.device}: use one of {', '.join(DEVICES)}; "
                "cuda, tensorrt and directml take an index (cuda:0) or several (cuda:0,1)"
            )
        if len(set(self.indices)) < len(self.indices):
            raise UsageError(f"--device {self.device}: name each device once")
        for option, value in (
            ("--workers", self.workers),
            ("--threads", self.threads),
            ("--batch-size", self.batch_size),
        ):
            if value is not None and not 1 <= value <= _MOST_AT_ONCE:
                raise UsageError(f"{option} {value}: use 1 to {_MOST_AT_ONCE}")
        if self.precision == "fp16" and self.kind in {"cpu", "openvino"}:
            raise UsageError(
                f"--precision fp16 runs on a GPU alone; leave out --device {self.device}, or use "
                "int8"
            )
        if self.precision == "int8" and self.kind not in {"auto", "cpu", "openvino"}:
            raise UsageError(
                f"--precision int8 runs on the CPU alone; leave out --device {self.device}, or "
                "use cpu or openvino"
            )

    @property
    def kind(self) -> str:
        """The device without its index."""
        return self.device.partition(":")[0]

    @property
    def indices(self) -> tuple[int, ...]:
        """The indices of the devices that share the work, 0 where none was given."""
        return tuple(int(index) for index in (self.device.partition(":")[2] or "0").split(","))


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
        if self.mirror is not None and not is_address(self.mirror, "https", "http"):
            raise UsageError(f"BGX_MODEL_MIRROR {self.mirror}: use an http(s) address")

    @classmethod
    def from_environment(cls, *, offline: bool = False) -> ModelSettings:
        """Read BGX_MODELS, BGX_HOME, BGX_MODEL_MIRROR and BGX_OFFLINE."""

        def path(name: str) -> Path | None:
            return expand_path(os.environ[name]) if os.environ.get(name) else None

        asked = os.environ.get("BGX_OFFLINE", "").lower()
        if asked not in _YES | _NO:
            raise UsageError(f"BGX_OFFLINE {asked}: use 1 or 0")
        return cls(
            registry=path("BGX_MODELS"),
            folder=path("BGX_HOME"),
            mirror=os.environ.get("BGX_MODEL_MIRROR") or None,
            offline=offline or asked in _YES,
        )


def expand_path(text: str) -> Path:
    """A path with its ``~`` expanded; one of an unknown user stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_address(text: str, *schemes: str) -> bool:
    """Whether a text is a URL of one of these schemes, with a host."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)
