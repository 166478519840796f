"""Options that several commands share, and how they become settings.

Every option can be set in the environment as ``BGX_`` and its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import click

from bgx.errors import UsageError
from bgx.settings import (
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIZE,
    DEFAULT_MODEL,
    FORMATS,
    DeviceSettings,
    Existing,
    ModelSettings,
    OutputSettings,
    PngLevel,
    Precision,
    ReadSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgx.settings import Colour, Format


def option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option with its environment variable, shown with its default."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    variable = "BGX_" + long.removeprefix("--").replace("-", "_").upper()
    defaults: dict[str, Any] = {"envvar": variable, "show_default": True}
    return click.option(*names, **(defaults | attributes))


_NETWORK_OPTIONS = (
    option(
        "--model",
        "-m",
        help=f"Network: a name or FILE.onnx.  [default: {DEFAULT_MODEL}, else the best one here]",
    ),
    option(
        "--device",
        "-d",
        default="auto",
        metavar="DEVICE",
        help="auto, cpu, cuda[:N], tensorrt[:N], directml[:N], coreml, openvino or webgpu; several "
        "GPUs as cuda:0,1.",
    ),
    option("--threads", type=int, help="Threads of one network run.  [default: chosen]"),
    option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="auto",
        help="int8 is what `bgx models optimize` made; auto takes it where it passed.",
    ),
    option("--offline", is_flag=True, help="Never use the network."),
    option("--quiet", is_flag=True, help="Say nothing but errors."),
    option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Say more; -vv says everything.",
    ),
)

_PICTURE_OPTIONS = (
    option(
        "--format",
        "-f",
        "file_format",
        type=click.Choice(FORMATS),
        help="Of the output.  [default: as OUTPUT's suffix says, else png]",
    ),
    option(
        "--quality",
        "-q",
        type=click.IntRange(1, 100),
        help="For lossy JPEG, WebP, AVIF.  [default: JPEG 92, AVIF 80, WebP lossless]",
    ),
    option(
        "--png-level",
        type=click.Choice(get_args(PngLevel)),
        default="fast",
        help="fast, or a fifth smaller in thirty times the time.",
    ),
    option("--mask-only", is_flag=True, help="Write the matte instead of the cut-out."),
    option(
        "--background",
        "-b",
        metavar="COLOUR",
        help="Put the subject on a colour: a name or #rrggbb.  [default for JPEG: white]",
    ),
    option(
        "--existing",
        type=click.Choice(get_args(Existing)),
        default="skip",
        help="Where the target exists: leave it, redo it if the source is newer, or redo it.",
    ),
    option("--max-size", default=DEFAULT_MAX_SIZE, help="Long side of the working image, pixels."),
    option("--max-pixels", default=DEFAULT_MAX_PIXELS, help="Refuse larger pictures."),
    option("--report", metavar="FILE|-", help="Write a JSON line for each picture."),
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that runs a network."""
    for decorate in reversed(_NETWORK_OPTIONS):
        command = decorate(command)
    return command


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that cuts out pictures."""
    for decorate in reversed(_PICTURE_OPTIONS):
        command = decorate(command)
    return network_options(command)


@dataclass(frozen=True, slots=True)
class Request:
    """The options of :func:`picture_options` or :func:`network_options`, checked."""

    model: str | None
    models: ModelSettings
    device: DeviceSettings
    read: ReadSettings
    output: OutputSettings
    existing: Existing
    report: str | None
    quiet: bool
    verbose: int


def make_request(
    *,
    model: str | None,
    device: str,
    threads: int | None,
    offline: bool,
    quiet: bool,
    verbose: int,
    file_format: Format | None = None,
    quality: int | None = None,
    png_level: PngLevel = "fast",
    mask_only: bool = False,
    background: str | None = None,
    existing: Existing = "skip",
    max_size: int = DEFAULT_MAX_SIZE,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    report: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
) -> Request:
    """Raises UsageError."""
    return Request(
        model=model,
        models=ModelSettings.from_environment(offline=offline),
        device=DeviceSettings(device, workers, threads, batch_size, precision),
        read=ReadSettings(max_size, max_pixels),
        output=OutputSettings(file_format, quality, _parse(background), mask_only, png_level),
        existing=existing,
        report=report,
        quiet=quiet,
        verbose=verbose,
    )


def _parse(background: str | None) -> Colour | None:
    if background is None:
        return None
    from bgx.image.colour import parse_colour

    return parse_colour(background)


def split_list(data: bytes, *, null: bool) -> list[str]:
    """File names of a list, one a line or NUL-separated; names keep bytes that are not text."""
    import os

    names = [os.fsdecode(name) for name in data.split(b"\0" if null else b"\n")]
    if not null:
        names = [name.removesuffix("\r") for name in names]
        if any("\0" in name for name in names):
            raise UsageError("--files-from: the list is NUL-separated; add -0")
    return [name for name in names if name]
