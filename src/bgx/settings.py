"""Settings: small frozen dataclasses, whose values are checked when they are created.

Command line, Python and server turn their options into these; everything else takes them as they
are. A wrong value raises :class:`~bgx.errors.UsageError` here, never later.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from bgx.errors import EmptyRegionError, RegionError, UsageError

DEFAULT_MODEL = "u2net"
DEFAULT_MAX_SIZE = 800
DEFAULT_MAX_PIXELS = 200_000_000

Existing = Literal["skip", "update", "overwrite"]
Format = Literal["png", "webp", "jpg", "avif", "tiff"]
PngLevel = Literal["fast", "small"]
MatteKind = Literal["clean", "raw", "solid"]
Keep = Literal["all", "largest", "centre"]
Precision = Literal["auto", "int8", "fp16", "fp32"]
ShadowKind = Literal["soft", "contact"]
Align = Literal["center", "bottom", "original"] | tuple[float, float]
"""Where the subject is placed: a word, or the shares (0..1) of the free space left of and above it.
"""

ColourSpace = Literal["keep", "srgb"]
Colour = tuple[int, int, int]
"""sRGB red, green, blue, each 0..255."""

WHITE: Colour = (255, 255, 255)

FORMATS: tuple[Format, ...] = get_args(Format)
LOSSLESS_FORMATS: frozenset[Format] = frozenset({"png", "tiff"})
"""Formats without a quality setting."""

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
# The same words that Click accepts.
_YES = frozenset({"1", "true", "t", "yes", "y", "on"})
_NO = frozenset({"", "0", "false", "f", "no", "n", "off"})
_DEVICE_WITH_INDICES = re.compile(r"(cuda|tensorrt|directml):\d+(,\d+)*")


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How photos are read.

    max_size: longer side of the working image, pixels. max_pixels: pictures with more pixels are
    refused before they are decoded.
    """

    max_size: int = DEFAULT_MAX_SIZE
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        if not isinstance(self.max_size, int) or self.max_size < 64:
            raise UsageError(f"--max-size {self.max_size}: use 64 or more")
        if not isinstance(self.max_pixels, int) or self.max_pixels < 1:
            raise UsageError(f"--max-pixels {self.max_pixels}: use 1 or more")


class Length(NamedTuple):
    """A length in pixels, or in percent of a length that depends on the option."""

    value: float
    unit: Literal["px", "%"]

    def __str__(self) -> str:
        # Without an exponent, which no option takes.
        return f"{self.value:.9f}".rstrip("0").rstrip(".") + self.unit


class Margins(NamedTuple):
    """Margins on the four sides."""

    top: Length
    right: Length
    bottom: Length
    left: Length

    @classmethod
    def even(cls, side: Length) -> Margins:
        """The same on all sides."""
        return cls(side, side, side, side)

    def __str__(self) -> str:
        sides = [str(side) for side in (self.top, self.right, self.bottom, self.left)]
        return sides[0] if len(set(sides)) == 1 else " ".join(sides)

    def pixels(self, longest: float, scale: float) -> tuple[float, float, float, float]:
        """Top, right, bottom and left, pixels.

        longest: the subject's longer side in the photo, pixels. scale: by which it is resized.
        """
        top, right, bottom, left = (
            side.value if side.unit == "px" else side.value / 100 * longest * scale
            for side in (self.top, self.right, self.bottom, self.left)
        )
        return top, right, bottom, left

    def fit_into(self, width: float, height: float) -> bool:
        """Whether those in pixels leave space for a subject."""
        top, right, bottom, left = self.pixels(0, 0)
        return left + right < width and top + bottom < height


class Area(NamedTuple):
    """A number of pixels, whatever the shape."""

    pixels: int


class Region(NamedTuple):
    """A part of the upright photo: lengths from its left and upper edge.

    Percent are of its width and height.
    """

    left: Length
    top: Length
    right: Length
    bottom: Length

    def __str__(self) -> str:
        return ",".join(map(str, (self.left, self.top, self.right, self.bottom)))

    def box(self, size: tuple[int, int], *, name: str) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in a photo of this width and height, in pixels.

        name: the photo's in messages. Raises RegionError where it reaches beyond the photo, and
        EmptyRegionError where it holds no pixel.
        """
        width, height = size
        left, top, right, bottom = (
            round(side.value if side.unit == "px" else side.value / 100 * full)
            for side, full in (
                (self.left, width),
                (self.top, height),
                (self.right, width),
                (self.bottom, height),
            )
        )
        if max(left, right) > width or max(top, bottom) > height:
            raise RegionError(
                f"{name}: --region {self} reaches beyond the photo's {width} x {height} pixels; "
                "use percent for photos of several sizes"
            )
        if left >= right or top >= bottom:
            raise EmptyRegionError(
                f"{name}: --region {self} holds no pixel of the photo's {width} x {height}"
            )
        return left, top, right, bottom


class Tint(NamedTuple):
    """A translucent colour. opacity: 0..254, of 255."""

    colour: Colour
    opacity: int


class Shadow(NamedTuple):
    """A shadow below the subject. strength: 0 (none) to 1 (black)."""

    kind: ShadowKind
    strength: float


class Backdrop(NamedTuple):
    """The photo itself behind the subject, blurred or without colour.

    radius: standard deviation of the blur in pixels of the finished picture, 0.5 to 1000; None is a
    fiftieth of its longer side.
    """

    kind: Literal["blur", "grey"]
    radius: float | None = None


Background = Colour | Tint | Path | bytes | Backdrop
"""A colour, an image file or its content, or the photo itself."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Where the network runs.

    device: one of DEVICES; cuda, tensorrt and directml also with an index (``cuda:1``) or several
    (``cuda:0,1``). workers: pictures in work at once. threads: of one network run. batch_size:
    pictures in one network run on a GPU. For these three, None leaves the choice to bgx. precision:
    int8 and fp16 run the copies that ``bgx models optimize`` made for the CPU and for a GPU; auto
    uses a copy if one passed.
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
        if self.device not in DEVICES and not _DEVICE_WITH_INDICES.fullmatch(str(self.device)):
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
            if value is None:
                continue
            if not isinstance(value, int) or not 1 <= value <= _MOST_AT_ONCE:
                raise UsageError(f"{option} {value}: use 1 to {_MOST_AT_ONCE}")
        if (self.workers or 1) * (self.threads or 1) > _MOST_AT_ONCE:
            raise UsageError(
                f"--workers {self.workers} --threads {self.threads}: use at most {_MOST_AT_ONCE} "
                "threads together; more than there are cores only slow bgx down"
            )
        if self.precision == "fp16" and self.kind in {"cpu", "openvino"}:
            raise UsageError(
                f"--precision fp16 needs a GPU; leave out --device {self.device}, or use int8"
            )
        if self.precision == "int8" and self.kind not in {"auto", "cpu", "openvino"}:
            raise UsageError(
                f"--precision int8 needs the CPU; leave out --device {self.device}, or use cpu or "
                "openvino"
            )

    @property
    def kind(self) -> str:
        """The device without its indices."""
        return self.device.partition(":")[0]

    @property
    def indices(self) -> tuple[int, ...]:
        """The indices of the devices to use; 0 if none is given."""
        return tuple(int(index) for index in (self.device.partition(":")[2] or "0").split(","))


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Where networks come from.

    registry: the user's own registry file, read after the built-in one. folder: where model files
    are kept; None is the platform's cache folder. mirror: base URL that replaces the published one.
    offline: never download anything. family: whose settings a FILE.onnx has; None finds out.
    """

    registry: Path | None = None
    folder: Path | None = None
    mirror: str | None = None
    offline: bool = False
    family: str | None = None

    def __post_init__(self) -> None:
        if self.mirror is not None and not is_address(self.mirror, "https", "http"):
            raise UsageError(f"BGX_MODEL_MIRROR {self.mirror}: use an http(s) address")

    @classmethod
    def from_environment(cls, *, offline: bool = False, family: str | None = None) -> ModelSettings:
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
            family=family,
        )


def expand_path(text: str) -> Path:
    """A path with ``~`` expanded; ``~`` of an unknown user is left as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_address(text: str, *schemes: str) -> bool:
    """Whether the text is a URL with a host and one of these schemes."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)
